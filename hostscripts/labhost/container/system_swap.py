"""Another system in the place of a person's own: a fresh one from the template, or one out of a snapshot.

The system before is kept until the first good start of the new one, and comes back when that start fails.
"""

from pathlib import Path

from labhost import lxc
from labhost.accounts import linux_accounts
from labhost.container import provision
from labhost.errors import Busy, LabhostError
from labhost.host import locks, user_state
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.keys import set_keys
from labhost.storage import drivers, overlay, snapshot_store, template_archive, templates
from labhost.system import failpoints, log
from labhost.system.processes import Account
from labhost.system.progress import Progress


def swap(host: Host, user: User, account: Account, system: Path) -> None:
    """Puts it in place, makes account and keys inside. The container is stopped; a start completes what a kill left."""
    with locks.hold(host, locks.KEYS, seconds=set_keys.WAIT, doing="keys are being written"):
        user.needs_provisioning = True
        user_state.save_user(host, user)
    failpoints.hit("unfinished")
    drivers.driver_of(host, user).install(user, account, system)
    failpoints.hit("exchanged")
    try:
        provision.provision_system(host, user, account)
    except (LabhostError, OSError):
        drivers.driver_of(host, user).roll_back(user, account)
        raise


def attach_all(host: Host) -> None:
    """Everybody's files, after a boot before anybody starts. One person's trouble stays hers."""
    for user in user_state.all_users(host):
        try:
            with locks.hold(host, locks.user_lock(user.name), seconds=0, doing="somebody is at work there"):
                _attach(host, user.name)
        except Busy:
            continue  # who is at work there attaches what is needed, and a removal must not be disturbed
        except (LabhostError, OSError) as error:
            log.write(f"{user.name}: the files cannot be attached: {error}", warning=True)


def _attach(host: Host, name: str) -> None:
    user = user_state.load_user(host, name)
    if user is None or user.removal or linux_accounts.passwd_entry(host, user) is None:
        return
    if drivers.driver_of(host, user).exists(user):
        drivers.driver_of(host, user).attach(user, linux_accounts.account_of(host, user))


def refresh_templates(host: Host, progress: Progress) -> None:
    """The current template is unpacked beside the old ones; those that no system and no snapshot needs are removed."""
    if not host.config.container.template.is_file():
        progress.write(
            f"warning: the template {host.config.container.template} is missing; build it with create-lxc-template.bash"
        )
        return
    with locks.hold(host, locks.TEMPLATES, seconds=900, doing="the template is being unpacked"):
        if host.config.container.storage == "overlay":
            current = templates.unpack(host)
            progress.write(f"template: {current}, unpacked once for all containers")
        else:
            current = template_archive.inspect(host).version
            progress.write(f"template: {current}")
        asked_for = snapshot_store.templates_in_use(host)
        if asked_for is not None:
            for version in templates.prune(host, {current} | overlay.needed_versions(host) | asked_for):
                progress.write(f"template: {version} removed, nothing needs it any more")


def prepare(host: Host, user: User, account: Account, progress: Progress) -> None:
    """What a start needs: the files attached, account and keys inside."""
    drivers.driver_of(host, user).attach(user, account)
    if user.needs_provisioning:
        progress.write("completing the new system")
        provision.provision_system(host, user, account)


def commit(host: Host, user: User, account: Account) -> None:
    """After a good start: the system before is no longer needed."""
    try:
        drivers.driver_of(host, user).commit(user, account)
    except (LabhostError, OSError) as error:
        log.write(f"{user.name}: the old system is not removed yet: {error}", warning=True)


def roll_back_failed_start(host: Host, user: User, account: Account, error: LabhostError) -> LabhostError:
    """The error of a start that failed; if the system never started before, the one before it is back."""
    if lxc.is_running(host, account):
        lxc.stop(host, account, grace=0)
    if not drivers.driver_of(host, user).roll_back(user, account):
        return error
    user.needs_provisioning = True  # its keys may be older than the last push
    user_state.save_user(host, user)
    log.write(f"{user.name}: the new system did not start, the one before is back: {error}", warning=True)
    return LabhostError(
        f"{error}. The new system did not start; the one before is back: ssh {host.config.server.name}-manage"
    )
