"""`./lab bench soak --enemy`: one container attacks in turns, while others register, start, log in and are revoked."""

import argparse
import json
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tests.lab import enemy
from tests.lab.lab import PEOPLE, Lab, only_one
from tests.lab.people import join, paste, register
from tests.lab.person import Person
from tests.lab.progress import progress
from tests.lab.waiting import eventually
from tests.lab.walk import body

NAME = "bench-enemy"
ENEMY, VICTIM, STARTER, NEWCOMER, LEAVER = "charlie", "alice", "bob", "lqchen", "boss"
GOALS = {"refused_others": 0, "slowest_other_s": 3.0, "slowest_revocation_s": 10.0, "host_changes": 0}
CALM_ROUNDS = 3
# What no container may change on a server, one thing a line.
WATCHED = """
md5sum /etc/passwd /etc/shadow /etc/group /etc/ssh/sshd_config /etc/sudoers.d/* /root/.ssh/authorized_keys
find /etc /root /usr/local /public /home/iam /home/register -xdev -not -name authorized_keys \
    -not -path '/etc/lxc/lab-iam-dhcp-hosts/*' -printf '%p %U %G %m\\n'
ip -4 route show default; ip -6 route show default; ip -4 address show dev eth0
sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding
"""


def main(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    with only_one(NAME):
        lab = Lab(NAME)
        if lab.exists:
            lab.remove()
        try:
            lab.make()
            result = Soak(lab, say).measure(options.minutes)
        finally:
            lab.remove()
    for name, most in GOALS.items():
        say(f"{name:24}{result[name]:8.2f}   at most {most}: {'kept' if result[name] <= most else 'MISSED'}")
    if options.json:
        print(json.dumps(result))
    return 0


class Soak:
    """Each kind of work of the others is done in a loop of its own; the enemy's attacks take turns."""

    def __init__(self, lab: Lab, say: Callable[[str], None]) -> None:
        self.lab, self.say = lab, say
        self._is_over, self._lock = threading.Event(), threading.Lock()
        self._is_calm = True
        self._seconds: dict[str, dict[bool, list[float]]] = {}  # kind of work -> calm -> seconds
        self._refused: list[str] = []
        self._revocations: list[float] = []

    def measure(self, minutes: float) -> dict[str, Any]:
        with progress("people join, register and start"):
            for name in (ENEMY, VICTIM, STARTER, NEWCOMER, LEAVER):
                join(self.lab, name)
            for name in (ENEMY, VICTIM, STARTER):
                register(self.lab, name)
                self.lab.people[name].ssh("gpu17-manage")
        before = self._watched()
        works = {"login": self._login, "start": self._start, "register": self._register, "revoke": self._revoke}
        threads = [threading.Thread(target=self._repeat, args=work, daemon=True) for work in works.items()]
        for thread in threads:
            thread.start()
        eventually(lambda: all(len(self._times(kind)) >= CALM_ROUNDS for kind in works), "calm rounds", timeout=300)
        self._is_calm = False
        counts = self._attack(time.monotonic() + 60 * minutes)
        self._is_over.set()
        for thread in threads:
            thread.join()
        changes = before ^ self._watched()
        for text in [*self._refused[:20], *sorted(changes)[:20]]:
            self.say(f"  {text}")
        return {
            "minutes": minutes,
            "attacks": counts,
            "works": {kind: len(self._times(kind, calm=False)) for kind in works},
            "refused_others": len(self._refused),
            "slowest_other_s": round(max(self._delay(kind) for kind in works if kind != "revoke"), 2),
            "slowest_revocation_s": round(max(self._revocations), 2),
            "host_changes": len(changes),
        }

    def _attack(self, end: float) -> dict[str, int]:
        addresses = {
            "own": self._address(ENEMY),
            "gateway": "10.0.3.1",
            "victim": self._address(VICTIM),
            "server": self.lab.servers["gpu17"].address,
            "other": self.lab.servers["gpu18"].address,
        }
        counts = dict.fromkeys(enemy.NAMES, 0)
        while time.monotonic() < end:
            name = enemy.NAMES[sum(counts.values()) % len(enemy.NAMES)]
            printed = enemy.attack(self.lab.people[ENEMY], "gpu17", name, addresses)
            counts[name] += 1
            self.say(f"  {name}{': ' + printed.strip().splitlines()[-1][:100] if printed.strip() else ''}")
        return counts

    def _repeat(self, kind: str, work: Callable[[], object]) -> None:
        while not self._is_over.wait(0.5):
            calm, began = self._is_calm, time.monotonic()
            try:
                work()
            except Exception as error:
                with self._lock:
                    self._refused.append(f"{kind}: {str(error).strip().splitlines()[-1][:160]}")
            finally:
                times = self._seconds.setdefault(kind, {True: [], False: []})
                times[calm and self._is_calm].append(time.monotonic() - began)

    def _times(self, kind: str, *, calm: bool = True) -> list[float]:
        return self._seconds.get(kind, {}).get(calm, [])

    def _delay(self, kind: str) -> float:
        """How much longer the slowest under attack took than usual."""
        return max(self._times(kind, calm=False), default=0.0) - statistics.median(self._times(kind))

    # -- what others do

    def _login(self) -> None:
        self.lab.people[VICTIM].ssh("gpu17", "true", timeout=30)

    def _start(self) -> None:
        person = self.lab.people[STARTER]
        person.ssh("gpu17-manage", "stop", timeout=60)
        person.ssh("gpu17-manage", timeout=60)
        person.ssh("gpu17", "true", timeout=30)

    def _register(self) -> None:
        register(self.lab, NEWCOMER)
        self.lab.servers["gpu17"].run(f"/usr/local/sbin/labhost remove {NEWCOMER} --purge --yes")

    def _revoke(self) -> None:
        """A new key works on both servers, is removed on the page, and is gone from both; the removal is timed."""
        person = self.lab.people[LEAVER]
        line = self._new_key(person)
        page = paste(self.lab, LEAVER, line)
        page.sign_in(LEAVER, PEOPLE[LEAVER][1])
        eventually(lambda: all(self._known(line)), "a new key", timeout=60)
        began = time.monotonic()
        assert page.submit(f"/me/keys/{self._number(line)}/remove").status_code == 200
        eventually(lambda: not any(self._known(line)), "a removed key is gone", timeout=60)
        self._revocations.append(time.monotonic() - began)

    def _new_key(self, person: Person) -> str:
        for suffix in ("", ".pub"):
            (person.folder / f".ssh/soak{suffix}").unlink(missing_ok=True)
        return person.make_key("soak")

    def _known(self, line: str) -> list[bool]:
        """Whether each server has the key, read from its disk and not over the network."""
        files = [machine.folder / "home/register/.ssh/authorized_keys" for machine in self.lab.servers.values()]
        return [body(line) in file.read_text() for file in files]

    def _number(self, line: str) -> int:
        database = self.lab.portal.folder / "data/lab-iam.sqlite3"
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)) as connection:
            query = "SELECT id FROM accounts_sshkey WHERE blob = ?"
            return int(connection.execute(query, (line.split()[1],)).fetchone()[0])

    # -- what is watched

    def _address(self, name: str) -> str:
        text = self.lab.servers["gpu17"].file(f"/var/lib/lab-iam/users/{name}.json")
        return str(json.loads(text)["address"])

    def _watched(self) -> set[str]:
        return {
            f"{name}: {line}"
            for name, machine in self.lab.servers.items()
            for line in machine.run(WATCHED, check=False).stdout.splitlines()
        }
