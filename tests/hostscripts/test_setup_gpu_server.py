"""sshd's settings, as setup-gpu-server.bash writes them for the version of sshd that it finds."""

import os
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / "hostscripts/setup-gpu-server.bash"
SSHD = "/usr/sbin/sshd"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="sshd -t reads host keys and its own folder"),
]


@pytest.fixture
def host_key(tmp_path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    (tmp_path / "empty").write_text("")
    Path("/run/sshd").mkdir(exist_ok=True)
    return tmp_path / "key"


def text(host_key: Path, knows: str, address: str = "192.0.2.7") -> str:
    """What set-up writes with an sshd that knows these settings besides those of the real one."""
    folder = host_key.parent
    (folder / "host.conf").write_text(f"[portal]\nurl = http://127.0.0.1:8000/x\nssh_address = {address}\n")
    (folder / "lab-iam-sshd.conf").write_bytes((SETUP.parent / "lab-iam-sshd.conf").read_bytes())
    functions = SETUP.read_text().removesuffix('main "$@"\n').replace("/etc/lab-iam/host.conf", f"{folder}/host.conf")
    sshd = f'sshd() {{ [[ $3 == {knows}=* ]] || {SSHD} -f {folder}/empty -h {host_key} "$@"; }}'
    (folder / "setup.bash").write_text(f"{functions}\n{sshd}\nsshd_text\n")
    return subprocess.run(["bash", folder / "setup.bash"], check=True, capture_output=True, text=True).stdout


def test_n3_the_real_sshd_accepts_what_is_written_for_it(host_key: Path) -> None:
    config = host_key.parent / "config"
    config.write_text(text(host_key, "none"))
    subprocess.run([SSHD, "-t", "-f", str(config), "-h", str(host_key)], check=True)
    effective = [SSHD, "-T", "-f", str(config), "-h", str(host_key), "-C", "user=iam,host=x,addr=192.0.2.1"]
    found = subprocess.run(effective, check=True, capture_output=True, text=True).stdout.splitlines()
    assert {"persourcemaxstartups 30", "maxstartups 200:30:400", "logingracetime 60", "permittty no"} <= set(found)


def test_n3_the_portal_is_exempt_where_sshd_makes_addresses_wait(host_key: Path) -> None:
    assert "PerSourcePenaltyExemptList" not in text(host_key, "none", "")
    assert text(host_key, "PerSourcePenaltyExemptList").startswith("PerSourcePenaltyExemptList 192.0.2.7\n")
    assert text(host_key, "PerSourcePenaltyExemptList", "").startswith("PerSourcePenaltyExemptList 127.0.0.1\n")


def test_n7_connections_without_a_command_end_where_sshd_can_end_them(host_key: Path) -> None:
    assert text(host_key, "UnusedConnectionTimeout").endswith(
        "Match User iam,register\n    UnusedConnectionTimeout 60\n"
    )
