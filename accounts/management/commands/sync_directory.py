"""manage.py sync_directory"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import directory
from accounts.services import people


class Command(BaseCommand):
    help = """Read the full names of all active people from the lab's directory.

The portal's own account (LDAP_BIND_DN) is used; nobody's password is needed. The worker does the same before
each delivery of keys, so run this by hand only to see what it does, or after changing the LDAP settings.

People whom the directory does not know (any more) are listed, and nothing else is done with them: locking
somebody out is a human's decision, because a directory can also answer with half of its people.

Exit status: 0 done, 1 the directory is unavailable (nothing was changed), 2 wrong usage."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say what would change")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        if not directory.configured():
            raise CommandError("LDAP_URL is not set, so there is no directory to read.", returncode=2)
        try:
            done = people.sync_names(actor="sync_directory", dry_run=dry_run)
        except directory.DirectoryUnavailable as fault:
            raise CommandError(f"{fault} ({fault.reason})") from None
        for name in done.updated:
            self.stdout.write(f"{'would update' if dry_run else 'updated'}: {name}")
        for name in done.missing:
            self.stdout.write(f"not in the directory: {name}")
        self.stdout.write(
            f"{len(done.updated)} {'to update' if dry_run else 'updated'}, {len(done.unchanged)} unchanged, "
            f"{len(done.missing)} not in the directory"
        )
