import subprocess

import pytest

from servers.ssh import host_keys
from tests.accounts.keys import line


def test_the_fingerprint_equals_the_one_of_ssh_keygen() -> None:
    public = line(comment="root@gpu17")
    done = subprocess.run(["ssh-keygen", "-lf", "-"], input=public, capture_output=True, text=True, check=True)
    assert host_keys.fingerprint(host_keys.canonical(public)) == done.stdout.split()[1]


def test_a_comment_and_spaces_are_removed() -> None:
    key_type, blob, _ = line().split()
    assert host_keys.canonical(f"  {key_type}  {blob}\troot@gpu17\n") == f"{key_type} {blob}"


def test_no_key_has_no_fingerprint() -> None:
    assert host_keys.fingerprint("") == ""


@pytest.mark.parametrize(
    "text",
    ["", "ssh-ed25519", "ssh-dss AAAA", "ssh-ed25519 %%%", "ssh-rsa " + line().split()[1], "x" * 5000],
    ids=["nothing", "no blob", "dss", "no base64", "another type", "too long"],
)
def test_an_invalid_host_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an SSH host key"):
        host_keys.canonical(text)
