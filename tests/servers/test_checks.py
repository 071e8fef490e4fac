from pathlib import Path

from pytest_django.fixtures import Settings

from servers import iam_key
from servers.checks import iam_key_is_usable


def ids() -> list[str | None]:
    return [message.id for message in iam_key_is_usable()]


def test_w001_there_is_no_key(settings: Settings, key_file: Path) -> None:
    settings.IAM_KEY_FILE = key_file
    assert ids() == ["servers.W001"]


def test_e002_others_can_read_the_key(settings: Settings, key_file: Path) -> None:
    settings.IAM_KEY_FILE = key_file
    iam_key.create(key_file)
    key_file.chmod(0o640)
    assert ids() == ["servers.E002"]


def test_e003_the_file_is_no_key(settings: Settings, key_file: Path) -> None:
    settings.IAM_KEY_FILE = key_file
    key_file.write_text("no key")
    key_file.chmod(0o600)
    assert ids() == ["servers.E003"]


def test_a_good_key_is_silent(settings: Settings, key_file: Path) -> None:
    settings.IAM_KEY_FILE = key_file
    iam_key.create(key_file)
    assert ids() == []
