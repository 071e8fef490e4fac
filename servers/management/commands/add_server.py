"""manage.py add_server"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from servers.management.terminal import ACTOR, LabCommand
from servers.models import Server
from servers.services.fleet import servers
from servers.ssh import host_keys
from servers.ssh.dial import RemoteError
from servers.ssh.host import scan_host_key


class Command(LabCommand):
    help = """Add a GPU server to the portal and pin its SSH host key.

Reads the server's host key and asks you to confirm its fingerprint. Compare it with the output of
this command on the server:

    ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub

From then on the portal only connects to the server if it presents this key. With --fingerprint or
--yes nothing is asked; use --yes only in a network that you trust.

Examples:

    manage.py add_server gpu17 172.16.2.17
    manage.py add_server gpu18 gpu18.mylab.com --ssh-port 2222 --fingerprint SHA256:...

Next: manage.py deploy_server NAME

Exit status: 0 added; 1 not reachable, another fingerprint, or refused; 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="short name that people use with ssh: gpu17")
        parser.add_argument("address", help="IP address or DNS name, for the portal and for people")
        parser.add_argument("--ssh-port", type=int, default=22, help="port of the server's sshd (22)")
        known = parser.add_mutually_exclusive_group()
        known.add_argument("--fingerprint", metavar="SHA256:...", help="the expected fingerprint")
        known.add_argument("--yes", action="store_true", help="pin the key that the server presents, without asking")

    def handle(
        self, *args: Any, name: str, address: str, ssh_port: int, fingerprint: str, yes: bool, **options: Any
    ) -> None:
        if Server.objects.filter(name=name).exists():
            raise CommandError(f"The server {name} exists already; edit it in the admin.")
        try:
            servers.new(name=name, address=address, ssh_port=ssh_port)  # before anything is asked of the address
            host_key = scan_host_key(address, ssh_port)
        except servers.ServerRefused as refused:
            raise CommandError(str(refused)) from None
        except RemoteError as error:
            raise CommandError(f"{name}: {error}") from None
        shown = host_keys.fingerprint(host_key)
        self.print_line(f"{address} port {ssh_port} presents {host_key.split()[0]} {shown}")
        if fingerprint and fingerprint != shown:
            raise CommandError(f"The fingerprint is not {fingerprint}: nothing was added.")
        if not fingerprint and not yes:
            self.confirm("Is this fingerprint correct?", "--fingerprint SHA256:... or --yes")
        try:
            servers.add(actor=ACTOR, name=name, address=address, ssh_port=ssh_port, host_key=host_key)
        except servers.ServerRefused as refused:
            raise CommandError(str(refused)) from None
        self.print_line(f"{name} added. Next: manage.py deploy_server {name}")
