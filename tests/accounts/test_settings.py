"""lab_iam/settings.py, each time in a new process as at a start of the portal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def start(*names: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"import json; from lab_iam import settings as s; print(json.dumps([str(getattr(s, n)) for n in {names!r}]))"
    clean = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "DATABASE_URL": "sqlite://:memory:"}
    return subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, cwd=ROOT, capture_output=True, text=True
    )


def read(*names: str, **environment: str) -> list[str]:
    done = start(*names, **{"SECRET_KEY": "x"} | environment)
    assert done.returncode == 0, done.stderr
    values: list[str] = json.loads(done.stdout)
    return values


def test_production_requires_a_secret_key() -> None:
    done = start("DEBUG")
    assert done.returncode != 0
    assert "SECRET_KEY is missing" in done.stderr.splitlines()[-1]


def test_debug_mode_requires_no_settings() -> None:
    assert start("DEBUG", DEBUG="true").returncode == 0


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DEBUG", "maybe", "write true or false"),
        ("TRUSTED_PROXIES", "two", "write a whole number from 0 to 10"),
        ("TRUSTED_PROXIES", "-1", "write a whole number"),
        ("LAB_PORTS", "22000", "write FIRST-LAST"),
        ("LAB_PORTS", "30000-20000", "does not hold"),
        ("LAB_SUBUIDS", "100000-100010", "does not hold"),
        ("LAB_NETWORKS", "172.16.2.1/24", "write networks like"),
        ("PORTAL_URL", "iam.mylab.com", "write http or https://HOST"),
        ("LDAP_URL", "ldap.mylab.com", "write ldap or ldaps://HOST"),
        ("LDAP_KIND", "novell", "write openldap or ad"),
        ("LDAP_TIMEOUT", "0", "write a whole number from 1 to 60"),
        ("BROKER_URL", "amqp://somewhere", "write redis://"),
        ("SECRET_KEY_FILE", "/nonexistent/key", "SECRET_KEY_FILE cannot be read"),
    ],
)
def test_a_wrong_value_fails_loudly(name: str, value: str, words: str) -> None:
    secret = {} if name.startswith("SECRET_KEY") else {"SECRET_KEY": "x"}
    done = start("DEBUG", **secret | {name: value})
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert name in last and words in last


def test_every_secret_can_be_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-the-file\nsecond line\n")
    path = str(tmp_path / "secret")
    files = {"SECRET_KEY_FILE": path, "LDAP_BIND_PASSWORD_FILE": path, "SECRET_KEY": ""}
    assert read("SECRET_KEY", "LDAP_BIND_PASSWORD", **files) == ["from-the-file"] * 2


def test_a_secret_set_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("b")
    done = start("DEBUG", SECRET_KEY="a", SECRET_KEY_FILE=str(tmp_path / "secret"))
    assert "both set" in done.stderr


def test_https_makes_cookies_secure() -> None:
    names = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_HSTS_SECONDS")
    assert read(*names, PORTAL_URL="https://iam.mylab.com", HSTS_SECONDS="60") == ["True", "True", "60"]
    assert read(*names, PORTAL_URL="http://iam.mylab.com", HSTS_SECONDS="60") == ["False", "False", "0"]


def test_the_kind_of_directory_decides_the_attributes() -> None:
    names = ("LDAP_USER_FILTER", "LDAP_NAME_ATTR", "LDAP_ID_ATTR")
    assert read(*names) == ["(uid=%(user)s)", "cn", "entryUUID"]
    assert read(*names, LDAP_KIND="ad") == ["(sAMAccountName=%(user)s)", "displayName", "objectGUID"]
    assert read("LDAP_NAME_ATTR", LDAP_KIND="ad", LDAP_NAME_ATTR="cn") == ["cn"]


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("ldap://ldap.mylab.com/mylab.com", "dc=mylab,dc=com"),
        ("ldap://ldap.mylab.com/ou=people,dc=x", "ou=people,dc=x"),
        ("ldap://ldap.mylab.com", ""),
    ],
)
def test_the_directory_url_may_contain_the_base(url: str, base: str) -> None:
    assert read("LDAP_URL", "LDAP_USER_BASE", LDAP_URL=url) == ["ldap://ldap.mylab.com", base]


def test_a_dot_env_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("LAB_PORTS=30000-30010\nLDAP_TIMEOUT=2\n")
    values = read("LAB_PORTS", "LDAP_TIMEOUT", ENV_FILE=str(tmp_path / "env"), LDAP_TIMEOUT="3")
    assert values == ["30000-30010", "3"]


def test_sqlite_is_set_up_for_many_writers() -> None:
    [databases] = read("DATABASES")
    for part in ("IMMEDIATE", "PRAGMA journal_mode=WAL", "20"):
        assert part in databases
