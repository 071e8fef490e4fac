"""Case L3: the portal is down, slow or lying; people can go on using their containers."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.lab.lab import PORTAL, Lab
from tests.lab.people import register


def test_l3_with_the_portal_down_everything_works_and_shows_the_age_of_its_data(lab: Lab) -> None:
    alice = register(lab, "alice")
    alice.ssh("gpu17-manage")
    lab.portal.web.stop()
    try:
        alice.ssh("gpu17-manage", "stop")
        done = alice.ssh("gpu17-manage")
        assert "portal does not answer" in done.stdout
        assert re.search(r"using the values of 20\d\d-\d\d-\d\d \d\d:\d\d, (just now|.* ago)", done.stdout), done.stdout
        assert "values from the portal: 20" in alice.ssh("gpu17-manage", "status").stdout
        alice.ssh("gpu17-manage", "port 8888")
        alice.ssh("gpu17-manage", "port -d 8888")
        alice.ssh("gpu17-manage", "restart")
        with alice.on_a_terminal("gpu17-manage", "console") as console:
            console.wait_for("# ")
        assert alice.ssh("gpu17", "id -un").stdout.strip() == "alice"
    finally:
        lab.portal.start_web()


@contextmanager
def instead_of_the_portal(lab: Lab, answer: Callable[[str], bytes | None]) -> Iterator[None]:
    """Another server at the portal's address: `answer` gets the path of the page; None means no answer."""
    lab.portal.web.stop()
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            path = peer.recv(4096).decode().split(" ")[1]
            body = answer(path)
            if body is None:
                held.append(peer)
                continue
            with peer, suppress(OSError):  # curl disconnects when it has read enough
                peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    listener = socket.create_server((PORTAL, 80))
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for peer in held:
            peer.close()
        lab.portal.start_web()


def test_l3_a_slow_portal_delays_a_start_by_only_seconds(lab: Lab) -> None:
    alice = register(lab, "alice")
    with instead_of_the_portal(lab, lambda _: None):
        done = alice.ssh("gpu17-manage", timeout=25)  # this portal never answers
    assert "using the values of" in done.stdout


LIES: dict[str, Callable[[str], bytes]] = {
    "another port": lambda path: b"22\n" if path.endswith("/port") else b"",
    "a page": lambda _: b"<html>sign in</html>",
    "a command": lambda _: b"22031;id\n",
    "evil limits": lambda path: b"" if path.endswith("/port") else b"memory=1\nlxc.hook.start = /bin/sh\n",
    "much": lambda _: b"2" * 3_000_000,
}


@pytest.mark.parametrize("lie", LIES)
def test_l3_a_lying_portal_changes_nothing(lab: Lab, lie: str) -> None:
    alice = register(lab, "alice")
    alice.ssh("gpu17-manage")
    before = json.loads(alice.ssh("gpu17-manage", "status --json").stdout)
    port = f"{before['port']}\n".encode()  # as if the truth were an empty page
    with instead_of_the_portal(lab, lambda path: LIES[lie](path) or port):
        done = alice.ssh("gpu17-manage")
    assert "warning: " in done.stdout and "using the values of" in done.stdout
    after = json.loads(alice.ssh("gpu17-manage", "status --json").stdout)
    assert after == before
    assert "hook" not in lab.servers["gpu17"].file("/home/alice/.local/share/lxc/alice/config")
