"""`console`: a root shell in one's own container, for when its sshd is broken.

lxc-attach runs as the person, in a scope of their own, on a terminal that labhost creates for it. Whatever root in the
container does to its terminal (TIOCSTI included) it does to that one; only bytes come back, as with ssh. The shell ends
with the connection.
"""

import errno
import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
import tty
from contextlib import suppress

from labhost import lxc
from labhost.accounts import linux_accounts
from labhost.errors import BadRequest, LabhostError, Refused
from labhost.host import Host, User
from labhost.system import Process, files, spawn

SECONDS = 86_400
SHELL = "cd /root 2>/dev/null || cd /; [ -x /bin/bash ] && exec /bin/bash -l; exec /bin/sh -l"


class _Disconnected(Exception):
    """The connection ended."""


def _disconnect(*_: object) -> None:
    raise _Disconnected


def check(host: Host, user: User) -> None:
    """BadRequest without a terminal, Refused when the container is stopped."""
    if not os.isatty(0) or not os.isatty(1):
        text = f"a console needs a terminal: ssh -t {host.config.server.name}-manage console"
        raise BadRequest(text, reason="no_terminal")
    if not lxc.is_running(host, linux_accounts.account_of(host, user)):
        text = f"the container is stopped; start it first: ssh {host.config.server.name}-manage"
        raise Refused(text, reason="not_running")


def open_shell(host: Host, user: User) -> None:
    """Relays until the shell or the connection ends."""
    account = linux_accounts.account_of(host, user)
    outer, inner = pty.openpty()
    os.fchown(inner, account.uid, account.gid)
    _copy_size(outer)
    command = [*lxc.scope_command(), *lxc.attach_command(host, account, ["/bin/sh", "-c", SHELL], _variables())]

    def own_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        fcntl.ioctl(inner, termios.TIOCSCTTY, 0)

    env = lxc.session_environment(host, account)
    try:
        shell = spawn(command, account=account, stdin=inner, output=inner, env=env, prepare=own_terminal)
    except OSError as error:
        problem = str(error.strerror)
        text = f"the console cannot be opened: {problem}"
        raise LabhostError(text, reason="console_failed", detail=problem) from error
    os.close(inner)
    before = termios.tcgetattr(0)
    signal.signal(signal.SIGWINCH, lambda *_: _copy_size(outer))
    for number in (signal.SIGHUP, signal.SIGTERM):  # sudo's terminal outlives the connection, its signal does not
        signal.signal(number, _disconnect)
    try:
        tty.setraw(0)
        _relay(outer)
    except _Disconnected:
        pass
    finally:
        with suppress(OSError):
            os.close(outer)  # the shell sees its terminal go away
        with suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, before)
        _end(shell)


def _variables() -> list[str]:
    term = os.environ.get("TERM", "")
    known = term.replace("-", "").replace(".", "").isalnum() and len(term) < 40
    return ["HOME=/root", "USER=root", "SHELL=/bin/sh", f"TERM={term if known else 'dumb'}"]


def _relay(outer: int) -> None:
    """Bytes in both directions until one side ends. A slow reader delays only the shell itself."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        ready, _, _ = select.select([0, outer], [], [], 60)
        for source, target in ((0, outer), (outer, 1)):
            if source in ready:
                piece = _read(source)
                if not piece:
                    return
                files.write_all(target, piece)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError as error:
        if error.errno in (errno.EIO, errno.EBADF):  # the other side of a terminal has gone
            return b""
        raise


def _copy_size(outer: int) -> None:
    with suppress(OSError):
        fcntl.ioctl(outer, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))


def _end(shell: Process) -> None:
    """Kill the shell if it does not end by itself when its terminal has gone."""
    try:
        shell.wait(timeout=3)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
