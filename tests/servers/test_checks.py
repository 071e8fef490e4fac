import os
import subprocess
import sys
from pathlib import Path

from pytest_django.fixtures import Settings

from servers.checks import portal_key_is_usable, servers_read_with_their_token
from servers.models import Server
from servers.ssh import portal_key


def ids() -> list[str | None]:
    return [message.id for message in portal_key_is_usable()]


def test_w001_a_missing_key(settings: Settings, key_file: Path) -> None:
    settings.PORTAL_KEY_FILE = key_file
    assert ids() == ["servers.W001"]


def test_e002_others_can_read_the_key(settings: Settings, key_file: Path) -> None:
    settings.PORTAL_KEY_FILE = key_file
    portal_key.create(key_file)
    key_file.chmod(0o640)
    assert ids() == ["servers.E002"]


def test_e003_the_file_is_not_a_key(settings: Settings, key_file: Path) -> None:
    settings.PORTAL_KEY_FILE = key_file
    key_file.write_text("no key")
    key_file.chmod(0o600)
    assert ids() == ["servers.E003"]


def test_a_good_key_has_no_messages(settings: Settings, key_file: Path) -> None:
    settings.PORTAL_KEY_FILE = key_file
    portal_key.create(key_file)
    assert ids() == []


def test_e004_redis_is_configured_and_its_module_is_missing(tmp_path: Path) -> None:
    code = "import sys; sys.modules['redis'] = None; sys.argv = ['manage.py', 'check']; import manage; manage.main()"
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "DEBUG": "true", "DATA_DIR": str(tmp_path)}
    root = Path(__file__).resolve().parents[2]

    def check(**settings: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment | settings, cwd=root, capture_output=True, text=True).stderr

    assert "servers.E004" not in check()
    assert "servers.E004" in (messages := check(BROKER_URL="redis://127.0.0.1"))
    assert "pip install -r requirements-redis.txt" in messages


def test_n5_w005_a_server_has_no_token_and_w006_reading_by_address_is_not_needed(
    settings: Settings, server: Server
) -> None:
    def found() -> list[str | None]:
        return [message.id for message in servers_read_with_their_token(databases=["default"])]

    settings.PLAIN_TEXT_BY_ADDRESS = True
    assert found() == ["servers.W005"] and list(servers_read_with_their_token()) == []
    Server.objects.update(token_digest="d" * 64)
    assert found() == ["servers.W006"]
    settings.PLAIN_TEXT_BY_ADDRESS = False
    assert found() == []
