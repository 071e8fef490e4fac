"""What the commands share: whole helps, exit statuses 0, 1 and 2, no question without a terminal."""

import sys
from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from servers.models import Server

ACTOR = "manage.py"
FAILED, USAGE = 1, 2


class LabCommand(BaseCommand):
    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs.setdefault("formatter_class", RawDescriptionHelpFormatter)
        return super().create_parser(prog_name, subcommand, **kwargs)

    def say(self, line: str) -> None:
        """One line of progress, at once."""
        self.stdout.write(line)
        self.stdout.flush()

    def confirm(self, question: str, option: str) -> None:
        """Go on only after a yes. Without a terminal nobody is asked: `option` is the answer to give."""
        if not sys.stdin.isatty():
            raise CommandError(f"Nobody can be asked here ({question}): give {option}.", returncode=USAGE)
        if input(f"{question} [y/N] ").strip().lower() not in {"y", "yes"}:
            raise CommandError("Nothing was changed.", returncode=FAILED)

    def server(self, name: str) -> Server:
        server = Server.objects.filter(name=name).first()
        if server is None:
            known = ", ".join(Server.objects.values_list("name", flat=True)) or "none yet; see add_server"
            raise CommandError(f"There is no server {name}. Known: {known}.", returncode=USAGE)
        return server
