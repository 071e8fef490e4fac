"""Words that destroy ask again: on the terminal, or by a one-time word. Nothing here is confirmed."""

import re

import pytest

from tests.lab.lab import Lab
from tests.lab.people import register
from tests.lab.person import Person


@pytest.fixture
def alice(lab: Lab) -> Person:
    person = register(lab, "alice")
    person.ssh("gpu17-manage")
    return person


def word(person: Person, words: str = "rebuild") -> str:
    done = person.ssh("gpu17-manage", words, check=False)
    assert done.returncode == 3 and "is lost" in done.stdout
    told = re.search(rf"ssh gpu17-manage {words} ([a-z0-9]{{8}})\n", done.stdout)
    assert told and "nothing was changed" in done.stdout, done.stdout
    return told[1]


def boot_id(person: Person) -> str:
    return str(person.ssh("gpu17", "cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1").stdout)


def test_without_a_terminal_a_word_is_told_and_another_is_refused(alice: Person) -> None:
    before = boot_id(alice)
    once = word(alice)
    wrong = ("b" if once[0] == "a" else "a") + once[1:]
    done = alice.ssh("gpu17-manage", f"rebuild {wrong}", check=False)
    assert done.returncode == 3 and "wrong or expired" in done.stdout
    assert "wrong or expired" in alice.ssh("gpu17-manage", f"rebuild {once}", check=False).stdout, "a guess was free"
    assert boot_id(alice) == before


def test_a_word_is_for_one_person(lab: Lab, alice: Person) -> None:
    bob = register(lab, "bob")
    done = bob.ssh("gpu17-manage", f"rebuild {word(alice)}", check=False)
    assert done.returncode == 3 and "wrong or expired" in done.stdout


@pytest.mark.parametrize("answer", ["no", "", "gpu18", "yes"])
def test_on_a_terminal_only_the_servers_name_is_a_yes(alice: Person, answer: str) -> None:
    before = boot_id(alice)
    with alice.on_a_terminal("gpu17-manage", "rebuild") as terminal:
        terminal.wait_for("to continue: ")
        terminal.type(f"{answer}\n")
        code, seen = terminal.end()
    assert code == 3 and "nothing was changed" in seen
    assert boot_id(alice) == before


def test_x1_the_servers_log_and_files_do_not_hold_the_word(lab: Lab, alice: Person) -> None:
    machine, once = lab.servers["gpu17"], word(alice)
    assert machine.status("/var/lib/lab-iam/confirm/alice") == "root root 600"
    assert once not in machine.file("/var/lib/lab-iam/confirm/alice")
    assert once not in machine.run("journalctl -b --no-pager -o cat").stdout
