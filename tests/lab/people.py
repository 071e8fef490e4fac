"""Common actions of people and the portal in tests: add a key, register, call the verbs of a host."""

import hashlib
import json
import secrets
import shlex
from dataclasses import dataclass
from typing import Any

from tests.lab.browser import Browser
from tests.lab.lab import PEOPLE, Lab
from tests.lab.machine import Machine
from tests.lab.person import Person
from tests.lab.shell import Completed, run
from tests.lab.waiting import eventually
from tests.lab.walk import Walk, body


def browser(lab: Lab) -> Browser:
    return Browser(f"http://{lab.portal.address}", "iam.mylab.com")


def paste(lab: Lab, name: str, line: str) -> Browser:
    """Paste a public key on the portal's page, as the person `name` with their password."""
    page = browser(lab)
    saved = page.submit(f"/manage/ssh-key/{name}", keys=line, password=PEOPLE[name][1])
    assert saved.url.endswith("/log/push-keys"), saved.text
    return page


def remove_key(lab: Lab, name: str, line: str) -> None:
    """Remove this key on the portal's page, as the person `name`."""
    page = browser(lab)
    page.sign_in(name, PEOPLE[name][1])
    (number,) = Walk(lab).rows("SELECT id FROM accounts_sshkey WHERE blob = ?", line.split()[1])[0]
    answer = page.submit(f"/me/keys/{number}/remove")
    assert answer.status_code == 200, answer.text


def join(lab: Lab, name: str) -> Person:
    """`name` has a key on every server and the portal's ~/.ssh/config."""
    person = lab.people[name]
    page = paste(lab, name, person.public_key)
    page.sign_in(name, PEOPLE[name][1])
    person.config.write_text(page.get(f"/user/{name}/.ssh/config").text)
    machines = lab.servers.values()
    eventually(lambda: all(is_known(machine, person.public_key) for machine in machines), f"{name}'s key on both")
    return person


def is_known(machine: Machine, line: str) -> bool:
    """Whether `register` on the server accepts this key."""
    return body(line) in machine.run("grep -v ^# /home/register/.ssh/authorized_keys", check=False).stdout


def register(lab: Lab, name: str, server: str = "gpu17") -> Person:
    """`name` with keys and a container on `server`. Completed steps are skipped."""
    person = lab.people[name]
    if not person.config.read_text():
        join(lab, name)
    person.ssh(f"register@{server}-manage", name, timeout=120)
    return person


@dataclass
class Answer:
    code: int
    body: dict[str, Any]
    progress: str

    @property
    def refusal(self) -> str:
        """The code of the error, "" on success."""
        return str(self.body.get("error", {}).get("code", ""))


def frame(request: bytes, length: int | None = None, digest: str | None = None) -> bytes:
    """A framed request, implemented a second time to check the one of the portal."""
    size = len(request) if length is None else length
    return f"lab-iam 1 {size} {digest or hashlib.sha256(request).hexdigest()}\n".encode() + request


class Iam:
    """Calls a server with the portal key, so that tests can send what a hostile portal would."""

    def __init__(self, lab: Lab, machine: Machine, *, timeout: float = 120) -> None:
        """A call that takes longer than `timeout` seconds fails the test."""
        self.key = lab.portal.folder / "data/portal_ed25519"
        self.machine, self.timeout = machine, timeout

    def ssh(self, command: str, stdin: str = "", *options: str) -> Completed:
        flags = ["-F", "none", "-i", str(self.key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
        flags += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        argv = ["ssh", *flags, *options, f"iam@{self.machine.address}", command]
        return run(argv, stdin=stdin, check=False, timeout=self.timeout)

    def call(self, verb: str, request: dict[str, Any]) -> Answer:
        return self.send(verb, frame(json.dumps({"version": 1, **request}).encode()))

    def send(self, verb: str, framed: bytes) -> Answer:
        """The last answer: set-keys gives one for each frame."""
        done = self.ssh(verb, framed.decode())
        return Answer(done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr)

    def status(self) -> dict[str, Any]:
        return self.call("status", {}).body

    def next_step(self) -> dict[str, Any]:
        """The fields of a push that follows the one that the server has applied last."""
        status = self.status()
        return {"revision": status["revision"] + 1, "id": secrets.token_hex(16), "previous": status["id"]}

    def set_keys(self, users: dict[str, list[str]], **step: Any) -> Answer:
        """Push public key lines of `users`, by default after the push that the server has applied last."""
        state = {name: [_parsed(line) for line in lines] for name, lines in users.items()}
        text = json.dumps(state, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        ids = {name: self.ids().get(name, 0) for name in users}
        return self.call("set-keys", self.next_step() | step | {"digest": digest, "users": state, "ids": ids})

    def ids(self) -> dict[str, int]:
        """The first subordinate id of each person on the server."""
        rows = [line.split(":") for line in self.machine.file("/etc/subuid").splitlines()]
        return {name: int(start) for name, start, _ in rows}


def _parsed(line: str) -> dict[str, str]:
    key_type, blob, *comment = line.split()
    return {"type": key_type, "blob": blob, "comment": " ".join(comment)}


def restore(lab: Lab) -> None:
    """Bring the servers back to the portal's state, after a test pushed something else as a newer revision."""
    for machine in lab.servers.values():
        if machine.running:
            machine.run("rm -f /var/lib/lab-iam/keys.sqlite3*")
    lab.portal.manage("push_keys", "--force", "--wait", check=False)


def forget(lab: Lab, name: str, server: str) -> None:
    """Remove all traces of `name` from a server, as an administrator would by hand."""
    (lab.people[name].folder / ".ssh/known_hosts").unlink(missing_ok=True)
    lab.servers[server].run(
        f"uid=$(id -u {name} 2>/dev/null) || exit 0; loginctl terminate-user {name}; loginctl disable-linger {name};"
        f" pkill -9 -U $uid; sleep 0.3; pkill -9 -U $uid; sleep 0.1;"
        f" umount /home/{name}/.local/share/lxc/{name}/rootfs /home/{name}/.local/share/lxc/{name}; userdel -f {name};"
        f" sed -i '/^{name} /d' /etc/lxc/lxc-usernet; sed -i '/^{name}:/d' /etc/subuid /etc/subgid;"
        f" rm -rf /home/{name} /var/lib/lab-iam/users/{name}.json",
        check=False,
    )


def labhost(lab: Lab, server: str, call: str, name: str) -> Completed:
    """`call` (as `lifecycle.rebuild` or `snapshots.make('x')`) for `name`, as sudo would let it run."""
    return lab.servers[server].run(labhost_command(call, name), check=False)


def labhost_command(call: str, name: str) -> str:
    """The same as a command line that can also be killed at its steps, which sudo's environment would forbid."""
    module, _, arguments = call.partition("(")
    program = (
        "import sys; sys.path.insert(0, '/usr/local/lib/lab-iam')\n"
        f"from labhost.container import {module.partition('.')[0]}\n"
        "from labhost.host import config, user_state\n"
        "from labhost.errors import LabhostError\n"
        "from labhost.system.progress import Progress\n"
        "host = config.load()\n"
        f"try: {module}(host, user_state.load_user(host, '{name}'), Progress(sys.stdout), {arguments.rstrip(')')})\n"
        "except LabhostError as error: sys.exit(str(error))\n"
    )
    return f"python3 -c {shlex.quote(program)}"
