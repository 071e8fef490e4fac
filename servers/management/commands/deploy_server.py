"""manage.py deploy_server"""

import getpass
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from servers.management.terminal import ACTOR, USAGE, LabCommand
from servers.services.fleet import deployment, inspection
from servers.ssh.dial import RemoteError
from servers.ssh.host import Login

PASSED_ON = {
    "driver": "install|bind: install the NVIDIA driver in each container, or mount the server's",
    "groups": "groups of the host accounts (sudo)",
    "bridge": "bridge of lxc-net, which gives containers DNS, DHCP and NAT (lxcbr0)",
    "network": "network of lxc-net, from which containers get addresses (10.0.3.0/24)",
    "storage": "auto|overlay|dir: storage of new containers (auto)",
    "quota": "auto|image|none: what enforces disk limits of new containers (auto)",
    "snapshots": "folder for snapshots, usually on a mounted NAS",
    "snapshots-keep": "number of snapshots to keep for each person (5)",
    "mount": "SRC:DST[:ro], a folder to mount in every container",
    "apparmor": "AppArmor profile of the containers",
    "installers": "folder with NVIDIA-Linux-ARCH-VERSION.run files (/public/nvidia)",
    "libraries": "folders with the server's libcuda.so.1",
    "devices": "folder with the nvidia* device nodes (/dev)",
    "driver-seconds": "time limit of the driver installation at a start (240)",
    "forwards": "ports that people can forward to their containers (30000-32767)",
    "forwards-each": "number of forwards for each person, 0 for none (5)",
}


class Command(LabCommand):
    help = """Install or update the host programs on a server.

Logs in over SSH (as root, or with --user as an account with passwordless sudo), copies hostscripts/
and runs setup-gpu-server.bash: it installs packages, the accounts iam and register, sudo rules, and
host.conf with the portal's address, its public key and a new token. Then a push is queued. Run it
again after updating the portal, or when its key or address has changed.

The first time, pass the template of the containers (see hostscripts/create-lxc-template.bash).
Options from --driver on keep their values on the server until you pass them again.

Examples:

    manage.py deploy_server gpu17 --identity ~/.ssh/id_ed25519 --template template.tar.zst
    manage.py deploy_server gpu17 --user admin --snapshots /mnt/nas/snapshots

Exit status: 0 deployed; 1 failed, the last line says why; 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="name of the server")
        parser.add_argument("--user", default="root", help="account to log in with (root)")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--identity", type=Path, metavar="FILE", help="private key without a passphrase")
        how.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
        parser.add_argument(
            "--template", type=Path, metavar="FILE", help="template of the containers, to copy to the server"
        )
        parser.add_argument("--address", default="", help="IPv4 address for people, if it differs")
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
            deployment.deploy(actor=ACTOR, server=server, plan=plan, report=self.print_line)
            self.print_line(inspection.test(actor=ACTOR, server=server))
        except (RemoteError, deployment.DeploymentFailed) as error:
            raise CommandError(f"{server.name}: {error}") from None

    def _login(self, user: str, identity: Path | None, from_stdin: bool) -> Login:
        if identity is not None:
            return Login(user, identity)
        if from_stdin:
            return Login(user, password=sys.stdin.readline().rstrip("\n"))
        if not sys.stdin.isatty():
            text = f"No terminal to ask for the password of {user}: use --identity FILE or --password-stdin."
            raise CommandError(text, returncode=USAGE)
        return Login(user, password=getpass.getpass(f"Password of {user}: "))
