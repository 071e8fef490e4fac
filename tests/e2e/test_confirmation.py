"""Commands that delete data ask for confirmation: on the terminal, or by a confirmation code. Nothing here is confirmed."""

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


def code_for(person: Person, words: str = "rebuild") -> str:
    done = person.ssh("gpu17-manage", words, check=False)
    assert done.returncode == 3 and "is lost" in done.stdout
    match = re.search(rf"ssh gpu17-manage {words} ([a-z0-9]{{8}})\n", done.stdout)
    assert match and "nothing was changed" in done.stdout, done.stdout
    return match[1]


def boot_id(person: Person) -> str:
    return str(person.ssh("gpu17", "cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1").stdout)


def test_without_a_terminal_a_code_is_printed_and_another_code_is_refused(alice: Person) -> None:
    before = boot_id(alice)
    code = code_for(alice)
    wrong = ("b" if code[0] == "a" else "a") + code[1:]
    done = alice.ssh("gpu17-manage", f"rebuild {wrong}", check=False)
    assert done.returncode == 3 and "wrong or expired" in done.stdout
    assert "wrong or expired" in alice.ssh("gpu17-manage", f"rebuild {code}", check=False).stdout, (
        "a wrong code did not use up the right one"
    )
    assert boot_id(alice) == before


def test_a_code_is_for_one_person(lab: Lab, alice: Person) -> None:
    bob = register(lab, "bob")
    done = bob.ssh("gpu17-manage", f"rebuild {code_for(alice)}", check=False)
    assert done.returncode == 3 and "wrong or expired" in done.stdout


@pytest.mark.parametrize("answer", ["no", "", "gpu18", "yes"])
def test_on_a_terminal_only_the_server_name_confirms(alice: Person, answer: str) -> None:
    before = boot_id(alice)
    with alice.on_a_terminal("gpu17-manage", "rebuild") as terminal:
        terminal.wait_for("to continue: ")
        terminal.type(f"{answer}\n")
        code, seen = terminal.end()
    assert code == 3 and "nothing was changed" in seen
    assert boot_id(alice) == before


def test_x1_the_code_is_not_in_the_servers_log_and_files(lab: Lab, alice: Person) -> None:
    machine, code = lab.servers["gpu17"], code_for(alice)
    assert machine.status("/var/lib/lab-iam/confirm/alice") == "root root 600"
    assert code not in machine.file("/var/lib/lab-iam/confirm/alice")
    assert code not in machine.run("journalctl -b --no-pager -o cat").stdout
