"""Another system in the place of a person's own: a fresh one from the template, or one out of a snapshot.

The system before is kept until the first good start of the new one, and comes back when that start fails.
"""

from pathlib import Path

from . import accounts, archives, delivery, faults, inside, locks, log, lxc, state, storage, template
from .config import Host
from .errors import Busy, LabhostError
from .progress import Progress
from .run import Account
from .state import User
from .storage import overlay, templates


def exchange(host: Host, user: User, account: Account, system: Path) -> None:
    """Puts it in place, makes account and keys inside. The container is stopped; a start completes what a kill left."""
    with locks.held(host, locks.KEYS, seconds=delivery.WAIT, doing="keys are being written"):
        user.unfinished = True
        state.save_user(host, user)
    faults.point("unfinished")
    storage.of(host, user).put(user, account, system)
    faults.point("exchanged")
    try:
        inside.finish(host, user, account)
    except (LabhostError, OSError):
        storage.of(host, user).revert(user, account)
        raise


def attach_all(host: Host) -> None:
    """Everybody's files, after a boot before anybody starts. One person's trouble stays hers."""
    for user in state.all_users(host):
        try:
            with locks.held(host, locks.of_user(user.name), seconds=0, doing="somebody is at work there"):
                _attach(host, user.name)
        except Busy:
            continue  # who is at work there attaches what is needed, and a removal must not be disturbed
        except (LabhostError, OSError) as error:
            log.note(f"{user.name}: the files cannot be attached: {error}", warning=True)


def _attach(host: Host, name: str) -> None:
    user = state.load_user(host, name)
    if user is None or user.removal or accounts.entry_of(host, user) is None:
        return
    if storage.of(host, user).exists(user):
        storage.of(host, user).attach(user, accounts.identity(host, user))


def refresh_templates(host: Host, say: Progress) -> None:
    """The current template is unpacked beside the old ones; those that no system and no snapshot needs are removed."""
    if not host.config.template.is_file():
        say.line(f"warning: the template {host.config.template} is missing; build it with create-lxc-template.bash")
        return
    with locks.held(host, locks.TEMPLATES, seconds=900, doing="the template is being unpacked"):
        if host.config.storage == "overlay":
            current = templates.unpack(host)
            say.line(f"template: {current}, unpacked once for all containers")
        else:
            current = template.facts(host).version
            say.line(f"template: {current}")
        asked_for = archives.templates(host)
        if asked_for is not None:
            for version in templates.prune(host, {current} | overlay.needed_versions(host) | asked_for):
                say.line(f"template: {version} removed, nothing needs it any more")


def ready(host: Host, user: User, account: Account, say: Progress) -> None:
    """What a start needs: the files attached, account and keys inside."""
    storage.of(host, user).attach(user, account)
    if user.unfinished:
        say.line("completing the new system")
        inside.finish(host, user, account)


def settle(host: Host, user: User, account: Account) -> None:
    """After a good start: the system before is no longer needed."""
    try:
        storage.of(host, user).settle(user, account)
    except (LabhostError, OSError) as error:
        log.note(f"{user.name}: the old system is not removed yet: {error}", warning=True)


def gave_up(host: Host, user: User, account: Account, error: LabhostError) -> LabhostError:
    """The error of a start that failed; if the system never started before, the one before it is back."""
    if lxc.is_running(host, account):
        lxc.stop(host, account, grace=0)
    if not storage.of(host, user).revert(user, account):
        return error
    user.unfinished = True  # its keys may be older than the last push
    state.save_user(host, user)
    log.note(f"{user.name}: the new system did not start, the one before is back: {error}", warning=True)
    return LabhostError(f"{error}. The new system did not start; the one before is back: ssh {host.config.name}-manage")
