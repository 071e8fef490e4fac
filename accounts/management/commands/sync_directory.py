"""manage.py sync_directory"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import directory
from accounts.services import people


class Command(BaseCommand):
    help = """Update the full names of all active people from the lab's directory.

Uses the portal's own account (LDAP_BIND_DN). The worker does the same before each push, so run this
by hand only to see the result, or after changing the LDAP settings.

People who are not in the directory are listed, but not locked out: a directory may answer with only
some of its people, so staff decide.

Examples:

    manage.py sync_directory --dry-run
    manage.py sync_directory

Exit status: 0 done; 1 the directory is unavailable, nothing was changed; 2 wrong usage."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="print what would change, change nothing")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        if not directory.configured():
            raise CommandError("LDAP_URL is not set: there is no directory to read.", returncode=2)
        try:
            done = people.sync_names(actor="sync_directory", dry_run=dry_run)
        except directory.DirectoryUnavailable as fault:
            raise CommandError(f"{fault} ({fault.reason})") from None
        for name in done.updated:
            self.stdout.write(f"{'would update' if dry_run else 'updated'}: {name}")
        for name in done.missing:
            self.stdout.write(f"not in the directory: {name}")
        self.stdout.write(
            f"{len(done.updated)} {'would be updated' if dry_run else 'updated'}, {len(done.unchanged)} unchanged, "
            f"{len(done.missing)} not in the directory"
        )
