"""manage.py deploy_server"""

import getpass
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from servers.management.terminal import ACTOR, USAGE, LabCommand
from servers.services.fleet import deployment, probe
from servers.ssh.dial import RemoteError
from servers.ssh.host import Login

PASSED_ON = {
    "driver": "install|bind: install the NVIDIA driver inside each container, or share the server's",
    "groups": "groups of people's accounts on the server (sudo)",
    "bridge": "LXC's bridge (lxcbr0)",
    "network": "its network (10.0.3.0/24)",
    "storage": "auto|overlay|dir: how new containers get their files (auto)",
    "snapshots": "folder of people's snapshots on the server, usually a mounted NAS",
    "snapshots-keep": "how many snapshots of each person are kept (5)",
    "mount": "SRC:DST[:ro], a folder to show in every container",
    "apparmor": "AppArmor profile of the containers",
    "installers": "folder with NVIDIA-Linux-ARCH-VERSION.run files (/public/nvidia)",
    "libraries": "folders with the server's libcuda.so.1",
    "devices": "folder with the nvidia* device nodes (/dev)",
    "driver-seconds": "how long the driver's installer may hold up a start (240)",
    "forwards": "ports that people may lead to their containers (30000-32767)",
    "forwards-each": "so many for each person; 0 for none (5)",
}


class Command(LabCommand):
    help = """Install the host scripts on a server that add_server knows, or bring them up to date.

Signs in over SSH (as root, or with --user as somebody with passwordless sudo), copies hostscripts/
and runs setup-gpu-server.bash there: packages, the accounts iam and register, sudo rules, host.conf
with this portal's address, its public key and a new token. Then orders a push of all keys. Run it
again at any time: after an update of the portal, or when its key or address has changed.

The first time, give the containers' template (see hostscripts/create-lxc-template.bash):

    manage.py deploy_server gpu17 --identity ~/.ssh/id_ed25519 --template template.tar.zst

Options from --driver on are kept by the server when you do not give them again.

Exit status: 0 done, 1 failed (the last line says why), 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a server that add_server knows")
        parser.add_argument("--user", default="root", help="account to sign in with (root)")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--identity", type=Path, metavar="FILE", help="private key without a passphrase")
        how.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
        parser.add_argument("--template", type=Path, metavar="FILE", help="archive to copy to the server")
        parser.add_argument("--address", default="", help="IPv4 address that people reach, if it is another")
        for name, text in PASSED_ON.items():
            parser.add_argument(f"--{name}", help=text.replace("%", "%%"))

    def handle(self, *args: Any, name: str, template: Path | None, address: str, **options: Any) -> None:
        server = self.server(name)
        if template is not None and not template.is_file():
            raise CommandError(f"There is no file {template}.", returncode=USAGE)
        plan = deployment.Plan(
            login=self._login(options["user"], options["identity"], options["password_stdin"]),
            template=template,
            address=address,
            options={name: given for name in PASSED_ON if (given := options[name.replace("-", "_")]) is not None},
        )
        try:
            deployment.deploy(actor=ACTOR, server=server, plan=plan, report=self.say)
            self.say(probe.test(actor=ACTOR, server=server))
        except (RemoteError, deployment.DeploymentFailed) as error:
            raise CommandError(f"{server.name}: {error}") from None

    def _login(self, user: str, identity: Path | None, from_stdin: bool) -> Login:
        if identity is not None:
            return Login(user, identity)
        if from_stdin:
            return Login(user, password=sys.stdin.readline().rstrip("\n"))
        if not sys.stdin.isatty():
            words = f"Nobody can be asked for {user}'s password here: give --identity FILE or --password-stdin."
            raise CommandError(words, returncode=USAGE)
        return Login(user, password=getpass.getpass(f"Password of {user}: "))
