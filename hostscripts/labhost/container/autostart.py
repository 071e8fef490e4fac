"""After a reboot, starts the containers that ran before.

Several start at once, each in its own process with its own deadline, so that one that fails or hangs delays nobody.
"""

from concurrent.futures import ThreadPoolExecutor

from labhost import lxc
from labhost.accounts import linux_accounts
from labhost.container import lifecycle
from labhost.errors import LabhostError
from labhost.host import Host, User, user_state
from labhost.system import Progress, log, run

LABHOST = "/usr/local/sbin/labhost"
AT_ONCE = 4
SECONDS = 150.0


def start_all(host: Host, progress: Progress) -> None:
    """Starts all that should be running and are not; LabhostError lists those that failed."""
    lifecycle.apply_rules(host)
    users = [
        user
        for user in user_state.all_users(host)
        if user.registered and user.desired_state == "running"
        if (account := linux_accounts.find_account(host, user)) is not None and not lxc.is_running(host, account)
    ]
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        reasons = dict(zip((user.name for user in users), pool.map(_start, users), strict=True))
    for name, reason in reasons.items():
        progress.write(f"{name}: {reason or 'started'}")
    failed = [name for name, reason in reasons.items() if reason]
    if failed:
        names = ", ".join(failed)
        raise LabhostError(f"did not start: {names}; see labhost doctor", reason="autostart_failed", users=names)


def start_one(host: Host, name: str, progress: Progress) -> None:
    """One person's container, if it should still be running."""
    lifecycle.start(host, user_state.find_registered(host, name), progress, only_if_wanted=True)


def _start(user: User) -> str:
    """Why it failed; empty if it started."""
    result = run([LABHOST, "autostart", user.name], timeout=SECONDS)
    lines = result.out.decode("utf-8", "replace").split("\n")
    reason = "" if result.ok else (lines[-2] if len(lines) > 1 and not result.timed_out else result.error_line)
    log.write(f"{user.name}: {reason or 'container started after a reboot'}", warning=bool(reason))
    return reason
