import subprocess
from pathlib import Path

import pytest

from servers.ssh import portal_key


def test_a_new_key_is_ed25519_and_readable_by_its_owner_only(key_file: Path) -> None:
    public = portal_key.create(key_file)
    assert key_file.stat().st_mode & 0o777 == 0o600
    done = subprocess.run(["ssh-keygen", "-y", "-f", str(key_file)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == public.split() and public.startswith("ssh-ed25519 ")
    assert [path.name for path in key_file.parent.iterdir()] == [key_file.name]


def test_a_second_key_replaces_the_first(key_file: Path) -> None:
    assert portal_key.create(key_file) != portal_key.create(key_file)


def test_a_missing_key_explains_what_to_do(key_file: Path) -> None:
    with pytest.raises(portal_key.NoKey, match="create_portal_key"):
        portal_key.public_line(key_file)


def test_a_damaged_key_explains_what_to_do(key_file: Path) -> None:
    key_file.write_text("not a key")
    with pytest.raises(portal_key.NoKey, match="--force"):
        portal_key.public_line(key_file)
