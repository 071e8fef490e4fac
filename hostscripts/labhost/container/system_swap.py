"""Replaces a container's root file system by a new one, from the template or from a snapshot.

The old one is kept until the new one has started once, and is restored if that start fails.
"""

from pathlib import Path

from labhost import lxc
from labhost.accounts import linux_accounts
from labhost.container import provision
from labhost.errors import Busy, LabhostError
from labhost.host import Host, User, locks, user_state
from labhost.storage import drivers, overlay, quota, snapshot_store, template_archive, templates
from labhost.system import Account, Progress, failpoints, log


def swap(host: Host, user: User, account: Account, system: Path) -> None:
    """Puts it in place and creates account and keys in it. The container is stopped; a start completes a killed run."""
    with locks.keys(host):
        user.needs_provisioning = True
        user_state.save_user(host, user)
    failpoints.hit("unfinished")
    with quota.some_room(host, user, account):
        drivers.driver_of(host, user).install(user, account, system)
        failpoints.hit("exchanged")
        try:
            provision.provision_system(host, user, account)
        except (LabhostError, OSError):
            drivers.driver_of(host, user).roll_back(user, account)
            raise


def attach_all(host: Host) -> None:
    """Attach everybody's files, after a boot before any start. One failure does not stop the others."""
    for user in user_state.all_users(host):
        try:
            with locks.user(host, user.name, seconds=0):
                now = user_state.load_user(host, user.name)
                account = None if now is None or now.removal else linux_accounts.find_account(host, now)
                if now and account and drivers.driver_of(host, now).exists(now):
                    drivers.driver_of(host, now).attach(now, account)
        except Busy:
            continue  # that command attaches what it needs, and a removal must not be disturbed
        except (LabhostError, OSError) as error:
            log.write(f"{user.name}: the files cannot be attached: {error}", warning=True)


def refresh_templates(host: Host, progress: Progress) -> None:
    """Unpack the current template; remove the ones that no container and no snapshot needs."""
    if not host.config.container.template.is_file():
        progress.write(f"warning: {host.config.container.template} is missing; create it with create-lxc-template.bash")
        return
    with locks.templates(host):
        if host.config.container.storage == "overlay":
            current = templates.unpack(host)
            progress.write(f"template: {current}, unpacked once for all containers")
        else:
            current = template_archive.inspect(host).version
            progress.write(f"template: {current}")
        detached = [name for name in user_state.all_names(host) if quota.is_detached(host, name)]
        if detached:
            progress.write(f"warning: no template is removed: the disk images of {', '.join(detached)} are not mounted")
        elif (of_snapshots := snapshot_store.templates_in_use(host)) is not None:
            for version in templates.prune(host, {current} | overlay.needed_versions(host) | of_snapshots):
                progress.write(f"template: removed {version}, which is no longer used")


def prepare(host: Host, user: User, account: Account, progress: Progress) -> None:
    """What a start needs: the files attached, account and keys in the container."""
    drivers.driver_of(host, user).attach(user, account)
    if user.needs_provisioning:
        progress.write("creating the account in the new container")
        provision.provision_system(host, user, account)


def commit(host: Host, user: User, account: Account) -> None:
    """After a successful start: the old root file system is no longer needed."""
    try:
        with quota.some_room(host, user, account):
            drivers.driver_of(host, user).commit(user, account)
    except (LabhostError, OSError) as error:
        log.write(f"{user.name}: the old root file system could not be removed yet: {error}", warning=True)


def roll_back_failed_start(host: Host, user: User, account: Account, error: LabhostError) -> LabhostError:
    """The error of a failed start. If the root file system is new, the old one is restored."""
    if lxc.is_running(host, account):
        lxc.stop(host, account, grace=0)
    with quota.some_room(host, user, account):
        found = drivers.driver_of(host, user).roll_back(user, account)
    if not found:
        return error
    user.needs_provisioning = True  # its keys may be older than the last push
    user_state.save_user(host, user)
    log.write(f"{user.name}: the new container did not start, the old one was restored: {error}", warning=True)
    text = f"{error}. The new container did not start; the old one was restored: ssh {host.config.server.name}-manage"
    return LabhostError(text, reason="rolled_back", **{**error.params, "cause": error.reason})
