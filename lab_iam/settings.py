"""All settings, read from the environment or `.env`; see `.env.example` for each."""

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from accounts.numbers import SUBUID_COUNT, NumberRange

BASE_DIR = Path(__file__).resolve().parent.parent


class Environment(environ.Env):
    """Typed readers; their errors name the setting and the expected value."""

    def secret(self, name: str, default: str = "") -> str:
        """The value of NAME, or the first line of the file NAME_FILE; setting both is an error."""
        path = self.str(f"{name}_FILE", "")
        if not path:
            return str(self.str(name, default))
        if self.str(name, ""):
            raise ImproperlyConfigured(f"{name} and {name}_FILE are both set: remove one.")
        try:
            return Path(path).read_text(encoding="utf-8").split("\n", 1)[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ImproperlyConfigured(f"{name}_FILE cannot be read: {error}.") from None

    def broker(self, name: str) -> str:
        """The address of a Redis. It may contain a password, so error messages do not repeat it."""
        text = self.secret(name)
        if text and not text.startswith(("redis://", "rediss://", "unix://")):
            raise ImproperlyConfigured(f"{name}: write redis://[:PASSWORD@]HOST[:PORT][/DATABASE], or remove it.")
        return text

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        text = str(self.str(name, str(default))).strip()
        if not (text.isascii() and text.isdecimal() and lowest <= int(text) <= highest):
            raise ImproperlyConfigured(f"{name}={text!r}: write a whole number from {lowest} to {highest}.")
        return int(text)

    def truth(self, name: str, default: bool) -> bool:
        text = str(self.str(name, str(default))).strip().lower()
        if text not in {"true", "yes", "on", "1", "false", "no", "off", "0"}:
            raise ImproperlyConfigured(f"{name}={text!r}: write true or false.")
        return text in {"true", "yes", "on", "1"}

    def range(self, name: str, default: str, size: int = 1) -> NumberRange:
        try:
            return NumberRange.parse(self.str(name, default), size)
        except ValueError as error:
            raise ImproperlyConfigured(f"{name}: {error}.") from None

    def networks(self, name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        try:
            return [ipaddress.ip_network(text.strip()) for text in self.list(name, default=[])]
        except ValueError as error:
            raise ImproperlyConfigured(f"{name}: {error}; write networks like 172.16.2.0/24.") from None

    def address(self, name: str, default: str, schemes: set[str]) -> str:
        text = str(self.str(name, default)).rstrip("/")
        try:
            parts = urlsplit(text)
            is_good = parts.scheme in schemes and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            is_good = False
        if text and not is_good:
            raise ImproperlyConfigured(f"{name}={text!r}: write {' or '.join(sorted(schemes))}://HOST.")
        return text

    def choice(self, name: str, values: tuple[str, ...]) -> str:
        text = str(self.str(name, values[0]))
        if text not in values:
            raise ImproperlyConfigured(f"{name}={text!r}: write {' or '.join(values)}.")
        return text


env = Environment()
Environment.read_env(os.environ.get("ENV_FILE", BASE_DIR / ".env"))

# The site
DEBUG = env.truth("DEBUG", False)
SECRET_KEY = env.secret("SECRET_KEY", "only-for-debugging-never-in-production" if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "SECRET_KEY is missing: set SECRET_KEY or SECRET_KEY_FILE to a long random text, "
        "or DEBUG=true to try the portal."
    )
DATA_DIR = Path(env.str("DATA_DIR", str(BASE_DIR / "data"))).absolute()
PORTAL_URL = env.address("PORTAL_URL", "http://localhost:8000", {"http", "https"})
_PORTAL_HOST = urlsplit(PORTAL_URL).hostname or "localhost"
_HTTPS = PORTAL_URL.startswith("https://")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[_PORTAL_HOST, "localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[PORTAL_URL] if _HTTPS else [])
TRUSTED_PROXIES = env.number("TRUSTED_PROXIES", 0, 0, 10)

ROOT_URLCONF = "lab_iam.urls"
WSGI_APPLICATION = "lab_iam.wsgi.application"
INSTALLED_APPS = [
    "lab_iam.apps.LabIamConfig",
    "lab_iam.apps.LabAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_htmx",
    "django_q",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "axes",
    "accounts",
    "servers",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "lab_iam.middleware.content_security_policy",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "/static/"
STATIC_ROOT = env.str("STATIC_ROOT", str(DATA_DIR / "static"))
WHITENOISE_USE_FINDERS = True  # works from a checkout, without collectstatic

LANGUAGE_CODE = "en-gb"
TIME_ZONE = env.str("TIME_ZONE", "UTC")
USE_TZ = True
USE_I18N = False
FORMAT_MODULE_PATH = "lab_iam.formats"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The database. With Django's defaults for SQLite nearly every concurrent write fails.
_DEFAULT_DATABASE = f"sqlite:///{DATA_DIR}/lab-iam.sqlite3"
DATABASES = {"default": env.db_url_config(env.secret("DATABASE_URL", _DEFAULT_DATABASE))}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL",
    }
    if DATABASES["default"]["NAME"] == f"{DATA_DIR}/lab-iam.sqlite3":
        DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)

# Ports and subordinate ids
LAB_PORTS = env.range("LAB_PORTS", "22000-29999")
LAB_SUBUIDS = env.range("LAB_SUBUIDS", "1000000000-2147483647", SUBUID_COUNT)
LAB_NETWORKS = env.networks("LAB_NETWORKS")
PLAIN_TEXT_BY_ADDRESS = env.truth("PLAIN_TEXT_BY_ADDRESS", False)
PORTAL_KEY_FILE = Path(env.str("PORTAL_KEY_FILE", str(DATA_DIR / "portal_ed25519"))).absolute()

# A push that would remove more than this is held back (servers/services/push/guard.py)
PUSH_MAX_REMOVAL_PERCENT = env.number("PUSH_MAX_REMOVAL_PERCENT", 20, 0, 100)
PUSH_MIN_PEOPLE = env.number("PUSH_MIN_PEOPLE", 5, 1, 1_000_000)

# The directory (accounts/directory.py reads these). ldap://ldap.mylab.com/mylab.com also sets the base.
LDAP_URL = env.address("LDAP_URL", "", {"ldap", "ldaps"})
_LDAP_PARTS = urlsplit(LDAP_URL)
_DOMAIN = _LDAP_PARTS.path.strip("/")
LDAP_URL = LDAP_URL.removesuffix(_LDAP_PARTS.path)
LDAP_KIND = env.choice("LDAP_KIND", ("openldap", "ad"))
LDAP_START_TLS = env.truth("LDAP_START_TLS", False)
LDAP_CA_FILE = env.str("LDAP_CA_FILE", "")
LDAP_BIND_DN = env.str("LDAP_BIND_DN", "")
LDAP_BIND_PASSWORD = env.secret("LDAP_BIND_PASSWORD")
LDAP_USER_BASE = env.str(
    "LDAP_USER_BASE", _DOMAIN if "=" in _DOMAIN else ",".join(f"dc={part}" for part in _DOMAIN.split(".") if part)
)
_AD = LDAP_KIND == "ad"
LDAP_LOGIN_ATTR = "sAMAccountName" if _AD else "uid"
LDAP_USER_FILTER = env.str("LDAP_USER_FILTER", f"({LDAP_LOGIN_ATTR}=%(user)s)")
LDAP_NAME_ATTR = env.str("LDAP_NAME_ATTR", "displayName" if _AD else "cn")
LDAP_ID_ATTR = env.str("LDAP_ID_ATTR", "objectGUID" if _AD else "entryUUID")
LDAP_STAFF_GROUP = env.str("LDAP_STAFF_GROUP", "")
LDAP_TIMEOUT = env.number("LDAP_TIMEOUT", 4, 1, 60)

# Signing in
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "accounts.backends.DirectoryBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/me/"
LOGOUT_REDIRECT_URL = "/"
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25  # hours, counted from the last wrong password before the lock
AXES_LOCKOUT_PARAMETERS = ["username", "ip_address"]
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_CLIENT_IP_CALLABLE = "lab_iam.network.client_address"
AXES_USERNAME_CALLABLE = "accounts.lockout.name_for_counting"
AXES_WHITELIST_CALLABLE = "accounts.lockout.not_counted"
AXES_LOCKOUT_CALLABLE = "accounts.lockout.answer"
AXES_SENSITIVE_PARAMETERS = ["username", "ip_address", "name", "keys", "next", "csrfmiddlewaretoken"]
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False

# Cookies and headers
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _HTTPS
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin" if _HTTPS else None  # over http browsers ignore it and log a warning
SECURE_SSL_REDIRECT = env.truth("SSL_REDIRECT", False)
SECURE_HSTS_SECONDS = env.number("HSTS_SECONDS", 0, 0, 10**9) if _HTTPS else 0
if TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# The API
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "knox.auth.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.LimitOffsetPagination",
    "PAGE_SIZE": 100,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Lab IAM",
    "DESCRIPTION": "People, SSH keys, servers and containers of the lab.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "ENUM_NAME_OVERRIDES": {"KeyStateEnum": "servers.services.status.key_status.State"},
}

# The worker; docs/design.md explains these numbers
BROKER_URL = env.broker("BROKER_URL")
# Bounds every wait for a Redis that does not answer; a dequeue itself takes a second.
_REDIS = f"{BROKER_URL}{'&' if '?' in BROKER_URL else '?'}socket_connect_timeout=5&socket_timeout=10"
Q_CLUSTER = {
    "name": "lab-iam",
    **({"redis": _REDIS} if BROKER_URL else {"orm": "default", "broker_class": "servers.processes.broker.Broker"}),
    "workers": 2,
    "timeout": 300,
    "retry": 1200,
    "poll": 0,
    "queue_limit": 1,
    "bulk": 1,
    "catch_up": False,
    "save_limit": 100,
    "ack_failures": True,
    "max_attempts": 3,
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", "INFO")},
    "loggers": {
        "django": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        # At DEBUG these log searches, distinguished names and whole packets.
        "django_auth_ldap": {"level": "ERROR"},  # accounts.directory logs each fault, once
        "paramiko": {"level": "WARNING"},
    },
}
