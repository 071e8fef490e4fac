"""labhost's table of verbs, and the requests of the portal."""

from typing import Any

import pytest
from labhost import cli
from labhost.admin import portal_requests
from labhost.errors import BadRequest


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the verbs run as if by root. Returns the deadlines that they set."""
    deadlines: list[int] = []
    monkeypatch.setattr(cli.os, "geteuid", lambda: 0)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli.signal, "alarm", deadlines.append)
    return deadlines


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_has_a_function_and_a_line_of_help(name: str) -> None:
    assert callable(cli.find(cli.VERBS[name]))
    assert f"\n  {name} " in cli.usage()


@pytest.mark.parametrize(
    "arguments",
    [
        ["user"], ["user", "help"], ["user", "start", "x"], ["register"], ["register", "--all"], ["register", "a", "b"],
        ["remove"], ["remove", "--purge"], ["remove", "alice", "--force"], ["suspend"], ["suspend", "alice"],
        ["revoke"], ["revoke", "a", "b"], ["revoke", "--undo"], ["revoke", "--all"],
        ["start"], ["stop", "a", "b"], ["autostart", "a", "b"], ["doctor", "--fix", "--fix"], ["doctor", "now"],
        ["status", "x"], ["reconcile", "x"], ["templates", "x"], ["nvidia", "1.2", "1.3"], ["check", "x"],
        ["version", "x"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_arguments_print_the_usage_of_the_verb(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith(f"usage: labhost {arguments[0]}")
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["help"], 0), (["--help"], 0), (["remvoe"], 2)])
def test_without_a_verb_all_verbs_are_listed(
    arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == status
    assert capsys.readouterr().err == cli.usage()


def test_each_verb_has_its_own_deadline(as_root: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert as_root == [cli.VERBS["version"].seconds] and capsys.readouterr().out.strip()


def test_only_root_runs_a_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli.os, "geteuid", lambda: 1000)
    assert cli.main(["version"]) == 1
    assert capsys.readouterr().err == "labhost must run as root\n"


@pytest.mark.parametrize("request_", [{}, {"user": "alice"}, {"purge": True}])
def test_a_request_that_lacks_a_field_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refusal:
        portal_requests._remove(request_)
    assert refusal.value.reason == "field_invalid"
    assert refusal.value.params["field"] not in request_


@pytest.mark.parametrize("revision", [True, -1, 2**53 + 1, "7", None, 1.5])
def test_the_revision_of_a_suspension_must_be_a_number(revision: object) -> None:
    with pytest.raises(BadRequest) as refusal:
        portal_requests._suspend({"user": "alice", "revision": revision})
    assert refusal.value.params == {"field": "revision"}


def test_purge_must_be_true_or_false() -> None:
    with pytest.raises(BadRequest) as refusal:
        portal_requests._remove({"user": "alice", "purge": "yes"})
    assert refusal.value.params == {"field": "purge"}
