"""Read full names from the directory, beside each push; a failure stops nothing."""

import logging
import threading
import time

from django.db import connections

from accounts.directory import DirectoryUnavailable
from accounts.services import keys, people
from servers.models import Worker

log = logging.getLogger(__name__)


def is_due() -> bool:
    """Whether keys have changed since the names were last read."""
    return not Worker.objects.filter(pk=1, names_revision__gte=keys.current_revision()).exists()


def refresh(*, actor: str) -> bool:
    """Update the full names of all people, once per revision; False if nothing was done."""
    revision = keys.current_revision()
    Worker.objects.get_or_create(pk=1)
    if not Worker.objects.filter(pk=1, names_revision__lt=revision).update(names_revision=revision):
        return False
    try:
        result = people.sync_names(actor=actor)
    except DirectoryUnavailable as error:
        log.warning("Full names were not updated: %s", error)
        return False
    if result.missing:
        log.warning("People who are not in the directory: %d. Nobody was locked out.", len(result.missing))
    return True


def start_refresh(*, actor: str, delay: float = 0.0) -> threading.Thread:
    """The same in a thread, after `delay` seconds: a slow directory does not delay the keys."""

    def work() -> None:
        time.sleep(delay)
        try:
            refresh(actor=actor)
        except Exception:
            log.exception("Full names were not updated.")
        finally:
            connections.close_all()

    thread = threading.Thread(target=work, name="names", daemon=True)
    thread.start()
    return thread
