"""After a reboot: containers that are wanted running are started again, several at once, each in a process and with
a deadline of its own, so that one that fails or hangs holds nobody up."""

from concurrent.futures import ThreadPoolExecutor

from labhost import lxc
from labhost.accounts import linux_accounts
from labhost.container import lifecycle
from labhost.errors import LabhostError, NotRegistered
from labhost.host import user_state
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.system import log
from labhost.system.processes import run
from labhost.system.progress import Progress

LABHOST = "/usr/local/sbin/labhost"
AT_ONCE = 4
SECONDS = 150.0


def to_start(host: Host) -> list[User]:
    """Those whose container is wanted running, and does not run."""
    return [
        user
        for user in user_state.all_users(host)
        if user.registered
        and user.desired_state == "running"
        and linux_accounts.passwd_entry(host, user) is not None
        and not lxc.is_running(host, linux_accounts.account_of(host, user))
    ]


def start_all(host: Host, progress: Progress) -> None:
    """Starts them all; LabhostError names those that did not come."""
    lifecycle.apply_rules(host)
    users = to_start(host)
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        reasons = dict(zip((user.name for user in users), pool.map(_start, users), strict=True))
    for name, reason in reasons.items():
        progress.write(f"{name}: {reason or 'runs again'}")
    failed = [name for name, reason in reasons.items() if reason]
    if failed:
        raise LabhostError(f"{', '.join(failed)} did not come back; see labhost doctor")


def start_one(host: Host, name: str, progress: Progress) -> None:
    """One person's container, if it is still wanted running."""
    user = user_state.load_user(host, name)
    if user is None or not user.registered:
        raise NotRegistered(f"{name} has no container here")
    lifecycle.start(host, user, progress, again=True)


def _start(user: User) -> str:
    """Why it did not come; empty if it did."""
    result = run([LABHOST, "autostart", user.name], timeout=SECONDS)
    lines = result.out.decode("utf-8", "replace").split("\n")
    reason = "" if result.ok else (lines[-2] if len(lines) > 1 and not result.timed_out else result.error_line)
    log.write(f"{user.name}: {reason or 'container came back'}", warning=bool(reason))
    return reason
