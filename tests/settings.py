"""lab_iam.settings in a known environment: neither the shell's environment nor a developer's .env changes a test."""

import os

# The database may be chosen, so that the same tests run on PostgreSQL; and the lab, so that two can be booted.
_KEEP = {"DATABASE_URL", "LAB_IAM_LAB", "LAB_IAM_TEST_NETWORKS"}
for _name in [name for name in os.environ if name.startswith(("LDAP_", "LAB_")) and name not in _KEEP]:
    del os.environ[_name]
for _name in (
    "SECRET_KEY_FILE",
    "DATABASE_URL_FILE",
    "BROKER_URL",
    "BROKER_URL_FILE",
    "TRUSTED_PROXIES",
    "SSL_REDIRECT",
    "HSTS_SECONDS",
    "DATA_DIR",
):
    os.environ.pop(_name, None)
os.environ |= {
    "ENV_FILE": os.devnull,
    "DEBUG": "false",
    "SECRET_KEY": "for-the-tests-only",
    "PORTAL_URL": "http://testserver",
    "ALLOWED_HOSTS": "testserver,localhost,127.0.0.1",
    "LOG_LEVEL": "WARNING",
}
os.environ.setdefault("DATABASE_URL", "sqlite://:memory:")

from lab_iam.settings import *  # noqa: E402, F403  every setting, with its type

# The tests make many passwords; one round of MD5 is enough to tell them apart.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
