"""manage.py add_server"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from servers.management.terminal import ACTOR, LabCommand
from servers.models import Server
from servers.services.fleet import servers
from servers.ssh import host_keys
from servers.ssh.dial import RemoteError
from servers.ssh.host_key_scan import scan_host_key


class Command(LabCommand):
    help = """Add a GPU server to the portal and pin its SSH host key.

The server is asked for its host key once, and you are shown the fingerprint. Compare it with what
this prints on the server itself:

    ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub

From then on the portal talks to nothing that shows another key. If you know the fingerprint
beforehand, give it with --fingerprint and nobody is asked. --yes takes whatever key is shown now:
only in a network that you trust.

Next step: manage.py deploy_server NAME

Exit status: 0 done, 1 not reachable, another fingerprint, or refused, 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="short name, which people type after ssh: gpu17")
        parser.add_argument("address", help="IP address or DNS name at which the portal and people reach it")
        parser.add_argument("--ssh-port", type=int, default=22, help="port of its own sshd (22)")
        known = parser.add_mutually_exclusive_group()
        known.add_argument("--fingerprint", metavar="SHA256:...", help="the fingerprint that it must have")
        known.add_argument("--yes", action="store_true", help="pin the key that it shows now, without asking")

    def handle(
        self, *args: Any, name: str, address: str, ssh_port: int, fingerprint: str, yes: bool, **options: Any
    ) -> None:
        if Server.objects.filter(name=name).exists():
            raise CommandError(f"There is a server {name} already; change it in the admin.")
        try:
            host_key = scan_host_key(address, ssh_port)
        except RemoteError as error:
            raise CommandError(f"{name}: {error}") from None
        shown = host_keys.fingerprint(host_key)
        self.say(f"{address} port {ssh_port} shows {host_key.split()[0]} {shown}")
        if fingerprint and fingerprint != shown:
            raise CommandError(f"That is not {fingerprint}: nothing was added.")
        if not fingerprint and not yes:
            self.confirm("Is that its fingerprint?", "--fingerprint SHA256:... or --yes")
        try:
            servers.add(actor=ACTOR, name=name, address=address, ssh_port=ssh_port, host_key=host_key)
        except servers.ServerRefused as refused:
            raise CommandError(str(refused)) from None
        self.say(f"{name} is added. Next: manage.py deploy_server {name}")
