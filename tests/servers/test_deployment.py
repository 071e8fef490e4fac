"""Deployment over real SSH; a small script stands in for setup-gpu-server.bash, which would change this machine."""

import hashlib
import io
import os
import tarfile
from ipaddress import ip_address
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from pytest_django.fixtures import Settings

from accounts.models import AuditEvent
from servers.models import Push, Server
from servers.services.fleet.deployment import DeploymentFailed, Plan, deploy, pack
from servers.ssh import portal_key
from servers.ssh.host import Login
from tests.servers.conftest import make_server
from tests.servers.farm import ADDRESSES, Farm

pytestmark = pytest.mark.django_db(transaction=True)
needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="signs in to this machine as root"),
]

SCRIPT = """#!/bin/bash
set -eu
cd "$(dirname "$0")"
echo "installing"
printf '%s\\n' "$@" >"@OUT@/words"
cp token "@OUT@/token"; stat -c '%a %u' token . >"@OUT@/modes"; ls >"@OUT@/files"
[ ! -e template.tar.zst ] || cp template.tar.zst "@OUT@/"
tr '\\0' ' ' </proc/$PPID/cmdline >"@OUT@/parent"
[ ! -e "@OUT@/fail" ] || { echo 'setup-gpu-server: debian 11 is not supported' >&2; exit 1; }
"""


@pytest.fixture
def out(tmp_path: Path, settings: Settings) -> Path:
    scripts = tmp_path / "portal/hostscripts"
    (scripts / "labhost/__pycache__").mkdir(parents=True)
    (scripts / "labhost/cli.py").write_text("")
    (scripts / "labhost/__pycache__/cli.pyc").write_text("")
    (scripts / "setup-gpu-server.bash").write_text(SCRIPT.replace("@OUT@", str(tmp_path)))
    (scripts / "setup-gpu-server.bash").chmod(0o755)
    settings.BASE_DIR = tmp_path / "portal"
    settings.PORTAL_URL = "http://iam.mylab.com"
    return tmp_path


@pytest.fixture
def gpu17(farm: Farm, transactional_db: None) -> Server:
    farm.behave(ADDRESSES[0], "shell")
    return make_server(farm)


class TestAsRoot:
    pytestmark = needs_root

    def test_the_scripts_run_with_the_portals_values(self, farm: Farm, gpu17: Server, out: Path) -> None:
        shown: list[str] = []
        plan = Plan(Login("root", farm.iam_key), options={"driver": "bind"})
        deploy(actor="warden", server=gpu17, plan=plan, report=shown.append)
        words = (out / "words").read_text().splitlines()
        given = dict(zip(words[::2], words[1::2], strict=True))
        token_file = given.pop("--token-file")
        assert ip_address(given.pop("--portal-address")).is_loopback  # as the server sees it
        assert given == {
            "--portal": "http://iam.mylab.com",
            "--name": "gpu17",
            "--address": ADDRESSES[0],
            "--iam-key": portal_key.public_line(farm.iam_key),
            "--ports": "22000-29999",
            "--subuids": "1000000000-2147483647",
            "--driver": "bind",
        }
        assert "installing" in shown
        assert set((out / "files").read_text().split()) == {"labhost", "setup-gpu-server.bash", "token"}
        assert not Path(token_file).parent.exists(), "its folder was not removed"
        assert AuditEvent.objects.filter(verb="server.deployed", actor="warden").exists()
        assert Push.objects.filter(server=gpu17, state="queued").exists()

    def test_x1_the_token_is_in_a_file_of_root_and_never_in_a_command(
        self, farm: Farm, gpu17: Server, out: Path
    ) -> None:
        plan = Plan(Login("root", farm.iam_key))
        deploy(actor="warden", server=gpu17, plan=plan, report=lambda _: None)
        token = (out / "token").read_text().strip()
        gpu17.refresh_from_db()
        assert gpu17.token_digest == hashlib.sha256(token.encode()).hexdigest() and not gpu17.next_token_digest
        assert (out / "modes").read_text().split() == ["600", "0", "700", "0"]
        everything = " ".join(farm.commands()) + (out / "words").read_text() + (out / "parent").read_text()
        assert len(token) >= 32 and token not in everything and token not in farm.log()

    def test_a_template_is_copied_completely_and_shows_its_progress(self, farm: Farm, gpu17: Server, out: Path) -> None:
        template = out / "debian.tar.zst"
        template.write_bytes(os.urandom(3_000_000))
        shown: list[str] = []
        plan = Plan(Login("root", farm.iam_key), template=template)
        deploy(actor="warden", server=gpu17, plan=plan, report=shown.append)
        assert (out / "template.tar.zst").read_bytes() == template.read_bytes()
        assert any("100 %" in line for line in shown)

    def test_the_last_output_of_setup_is_the_error_and_the_old_token_stays(
        self, farm: Farm, gpu17: Server, out: Path
    ) -> None:
        (out / "fail").touch()
        Server.objects.update(token_digest="d" * 64)
        with pytest.raises(DeploymentFailed, match="setup-gpu-server: debian 11 is not supported"):
            deploy(actor="warden", server=gpu17, plan=Plan(Login("root", farm.iam_key)), report=lambda _: None)
        gpu17.refresh_from_db()
        assert gpu17.token_digest == "d" * 64 and Push.objects.count() == 0
        assert len(gpu17.next_token_digest) == 64, "the server may have the new token already"


def test_a_missing_portal_key_is_reported_before_anything_is_sent(
    farm: Farm, gpu17: Server, settings: Settings
) -> None:
    settings.PORTAL_KEY_FILE = farm.folder / "none"
    with pytest.raises(portal_key.NoKey, match="create_portal_key"):
        deploy(actor="warden", server=gpu17, plan=Plan(Login(farm.user, farm.iam_key)), report=lambda _: None)
    assert farm.commands() == []


def test_a_template_of_another_kind_is_refused(farm: Farm, gpu17: Server) -> None:
    plan = Plan(Login(farm.user, farm.iam_key), template=Path("debian.iso"))
    with pytest.raises(DeploymentFailed, match=r"tar\.zst"):
        deploy(actor="warden", server=gpu17, plan=plan, report=lambda _: None)


def test_the_archive_has_the_scripts_owned_by_root_and_no_compiled_files() -> None:
    with tarfile.open(fileobj=io.BytesIO(pack(django_settings.BASE_DIR / "hostscripts"))) as archive:
        members = {member.name: member for member in archive.getmembers()}
    assert members["setup-gpu-server.bash"].mode == 0o755 and "labhost/cli.py" in members
    assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "root")}
    assert not [name for name in members if "__pycache__" in name]
