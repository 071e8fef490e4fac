"""The steps of a registration, a removal and a suspension: order, numbers, steps that are already done, and a failure."""

import io
from contextlib import suppress
from pathlib import Path

import pytest
from labhost.errors import LabhostError
from labhost.host.user_state import User
from labhost.people import registration, removal, shutdown, steps
from labhost.people.steps import Run, Step
from labhost.system.progress import Progress

from tests.hostscripts import hosts


def perform(
    tmp_path: Path, *, done: tuple[str, ...] = (), failing: str = "", go_on: tuple[str, ...] = ()
) -> tuple[list[str], list[str], str]:
    """Names of the steps that ran and of those that were recorded, and the output."""
    ran: list[str] = []

    def step(name: str) -> Step:
        def action(run: Run) -> None:
            ran.append(name)
            if name == failing:
                raise LabhostError("the disk is full", reason="disk_full")

        return Step(name, f"doing {name}", action)

    noted: list[str] = []
    output = io.StringIO()
    tmp_path.mkdir(exist_ok=True)
    run = Run(hosts.make(tmp_path), User("alice"), Progress(output))
    with suppress(LabhostError):
        steps.perform(run, [step("a"), step("b"), step("c")], prefix="", note=noted.append, done=done, go_on=go_on)
    return ran, noted, output.getvalue()


def test_every_step_runs_in_order_and_is_noted(tmp_path: Path) -> None:
    ran, noted, output = perform(tmp_path)
    assert ran == noted == ["a", "b", "c"]
    assert output == "[1/3] doing a\n[2/3] doing b\n[3/3] doing c\n"


def test_a_step_that_is_done_is_skipped_and_keeps_its_number(tmp_path: Path) -> None:
    ran, _, output = perform(tmp_path, done=("a", "b"))
    assert ran == ["c"] and output == "[3/3] doing c\n"


def test_a_step_that_fails_is_not_noted_and_ends_the_run(tmp_path: Path) -> None:
    ran, noted, _ = perform(tmp_path, failing="b")
    assert ran == ["a", "b"] and noted == ["a"]


@pytest.mark.parametrize("sequence", [registration.STEPS, removal.STEPS, shutdown.STEPS])
def test_no_two_steps_have_one_name(sequence: tuple[Step, ...]) -> None:
    assert len({step.name for step in sequence}) == len(sequence)


def test_a_removal_ends_what_runs_before_it_touches_the_files() -> None:
    names = [step.name for step in removal.STEPS]
    assert names[:3] == ["note", "shell", "keys"], "logins are stopped first"
    assert max(names.index(step.name) for step in shutdown.STEPS) < names.index("data")


def test_an_interrupted_removal_says_why_and_what_is_left() -> None:
    cause = LabhostError("processes do not end", reason="processes_left", name="alice", pids="7")
    done = [step.name for step in removal.STEPS if step.name != "account"]
    error = steps.incomplete(cause, removal.STEPS, done, reason="removal_incomplete")
    assert str(error) == "processes do not end; not done yet: deleting the account; run it again"
    assert error.reason == "removal_incomplete"
    assert error.params == {"name": "alice", "pids": "7", "cause": "processes_left", "left": "deleting the account"}
    assert error.code == "busy", "the portal retries it"


def test_z1_a_step_that_fails_does_not_stop_the_others_that_end_access(tmp_path: Path) -> None:
    ran, noted, output = perform(tmp_path, failing="a", go_on=("a", "b"))
    assert (ran, noted) == (["a", "b"], ["b"]), "c needs the step that failed"
    assert "warning: the disk is full; going on" in output
    ran, noted, _ = perform(tmp_path / "again", failing="a", go_on=("a", "b", "c"))
    assert (ran, noted) == (["a", "b", "c"], ["b", "c"])
