"""A real Active Directory: Samba's domain controller with LDAP only, on a loopback address."""

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from tests.lab.directory import make_certificates
from tests.lab.processes import Daemon, wait_for_port

SAMBA = shutil.which("samba", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
ADDRESS = "127.0.0.77"  # the ports 389 and 636 are fixed, an address of loopback is free
BASE = "DC=ad,DC=lab,DC=test"
PEOPLE = f"CN=Users,{BASE}"
STAFF_GROUP = f"CN=lab-admins,{PEOPLE}"
IAM = "iam-reader"

PROVISION = [
    "domain", "provision", "--realm=AD.LAB.TEST", "--domain=LAB", "--server-role=dc", "--dns-backend=NONE",
    "--use-rfc2307", "--host-name=dc1", "--host-ip=127.0.0.1", "--option=interfaces=lo",
    "--option=bind interfaces only=yes", "--option=vfs objects=dfs_samba4 acl_xattr xattr_tdb",
    "--option=server services=ldap",
]  # fmt: skip
CONFIGURATION = """
	interfaces = {address}/8
	log file = {folder}/samba.log
	pid directory = {folder}/run
	ncalrpc dir = {folder}/run/ncalrpc
	tls enabled = yes
	tls keyfile = {folder}/server.key
	tls certfile = {folder}/server.pem
	tls cafile = {folder}/ca.pem
"""


class ActiveDirectory:
    """Stored in `folder`. People get passwords that the domain's policy accepts: long, with a capital and a digit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.domain = folder / "domain"
        self.conf = self.domain / "etc/smb.conf"
        self.iam_password = f"Aa1-{secrets.token_urlsafe(16)}"
        self.daemon = Daemon("samba", folder)

    def start(self) -> None:
        """Create the domain, start its controller, and add the portal's account and the staff groups."""
        if SAMBA is None:
            raise FileNotFoundError(
                "samba is missing: apt-get install --no-install-recommends samba samba-ad-provision"
            )
        (self.folder / "run").mkdir(mode=0o755)
        make_certificates(self.folder, [ADDRESS, "dc1.ad.lab.test"])
        administrator = f"--adminpass=Aa1-{secrets.token_urlsafe(16)}"
        self._run(*PROVISION, f"--targetdir={self.domain}", administrator)
        text = self.conf.read_text().replace("interfaces = lo\n", "")
        more = CONFIGURATION.format(folder=self.folder, address=ADDRESS)
        self.conf.write_text(text.replace("[global]\n", f"[global]{more}", 1))
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self.daemon.start([str(SAMBA), "-i", "-M", "single", "-s", str(self.conf)], env=env, cwd=self.folder)
        wait_for_port(ADDRESS, 636, self.daemon.log)
        self.tool("user", "create", IAM, self.iam_password)
        for group in ("lab-admins", "lab-professors"):
            self.tool("group", "add", group)
        self.tool("group", "addmembers", "lab-admins", "lab-professors")  # one group inside the other

    def stop(self) -> None:
        self.daemon.stop()

    def tool(self, *words: str) -> None:
        """Run `samba-tool ARGUMENTS` on the files of the running domain."""
        self._run(*words, f"--configfile={self.conf}")

    def add_user(self, name: str, full_name: str, password: str) -> None:
        given, _, family = full_name.partition(" ")
        self.tool("user", "create", name, password, f"--given-name={given}", f"--surname={family}")

    def _run(self, *words: str) -> None:
        done = subprocess.run(
            ["samba-tool", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"samba-tool {words[:2]}: {done.stdout}{done.stderr}"
