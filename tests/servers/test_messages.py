"""The text of coded messages: every reason has one, for staff and for people."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

from servers import messages
from servers.message_texts import TEXTS
from servers.protocol import CODES, Message
from servers.ssh.dial import RemoteError

ROOT = Path(__file__).resolve().parents[2]
MADE = {"Message", "RemoteError", "NoKey", "__init__"}  # callables whose first argument is a reason
SLUG = re.compile(r"[a-z][a-z0-9_]*")
# Of labhost: what only people at a terminal of the server run, and none of the verbs that the portal calls.
ON_THE_HOST = re.compile(
    "labhost/(shell/|admin/(doctor/|installation|sudoers|nvidia_report)"
    "|network/forwards|storage/snapshot_store|container/snapshots)"
)
FOR_STAFF = ("manage.py", "the admin", "worker", "deploy", "log.")


def reasons(folder: str) -> Iterator[tuple[str, set[str]]]:
    """Each reason in the source, and its parameters (with other keyword arguments)."""
    for path in (ROOT / folder).rglob("*.py"):
        if ON_THE_HOST.search(str(path)):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            given: dict[str | None, ast.expr] = {word.arg: word.value for word in node.keywords}
            first = node.args[0] if node.args and called(node) in MADE else None
            reason = given.pop("reason", first)
            if isinstance(reason, ast.Constant) and isinstance(reason.value, str) and SLUG.fullmatch(reason.value):
                params = next((arg for arg in node.args[1:] if isinstance(arg, ast.Dict)), ast.Dict(keys=[], values=[]))
                in_dict = {str(key.value) for key in params.keys if isinstance(key, ast.Constant)}
                yield reason.value, in_dict | {name or "**" for name in given} | {called(node)}


def called(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def fields(reason: str) -> set[str]:
    """The parameters of its texts."""
    texts = TEXTS[reason]
    parts = [part for text in ([texts] if isinstance(texts, str) else texts) for part in Formatter().parse(text)]
    return {name for _, name, _, _ in parts if name is not None}


@pytest.mark.parametrize("folder", ["servers", "hostscripts/labhost"])
def test_every_reason_has_a_text(folder: str) -> None:
    assert {reason for reason, _ in reasons(folder)} - TEXTS.keys() == set()


@pytest.mark.parametrize("folder", ["servers", "hostscripts/labhost"])
def test_every_text_has_its_parameters(folder: str) -> None:
    # Set by these themselves.
    known = {"NoKey": {"path"}, "check": {"command", "detail"}, "incomplete": {"cause", "left"}}
    missing = {
        reason: fields(reason) - given
        for reason, names in reasons(folder)
        if reason in TEXTS and "**" not in names
        for given in [names.union(*(known.get(name, set()) for name in names))]
        if fields(reason) - given
    }
    assert missing == {}


def test_the_reasons_of_the_portal_are_found() -> None:
    found = dict(reasons("servers"))
    assert {"no_answer", "held_back", "people_failed", "portal_key_missing", "job_interrupted"} <= found.keys()
    assert "attempts" in found["job_interrupted"] and {"address", "port"} <= found["no_answer"]


def test_every_kind_of_refusal_has_a_text() -> None:
    assert TEXTS.keys() >= CODES


def test_no_text_for_people_has_words_for_staff() -> None:
    texts = {reason: messages.render(Message(reason), "person") for reason in TEXTS}
    assert {reason: text for reason, text in texts.items() if any(word in text for word in FOR_STAFF)} == {}


@pytest.mark.parametrize("audience", ["staff", "person"])
def test_every_text_is_one_line_that_ends_like_a_sentence(audience: messages.Audience) -> None:
    for reason in TEXTS:
        text = messages.render(Message(reason), audience)
        assert (text.endswith(".") and not text.endswith("..") and text[0].isupper()) or text[0] == "?", reason
        assert text.isprintable() and "{" not in text, reason


@pytest.mark.parametrize(("count", "text"), [(1, "The keys of 1 person"), (2, "The keys of 2 people")])
def test_counts_agree_with_their_nouns(count: int, text: str) -> None:
    assert messages.render(Message("people_failed", {"count": count})).startswith(text)


def test_staff_and_people_read_different_texts() -> None:
    error = Message("portal_key_refused", {"user": "iam", "server": "gpu17"})
    assert "manage.py deploy_server gpu17" in messages.render(error)
    assert "gpu17" not in messages.render(error, "person")


def test_a_reason_of_a_newer_host_is_named_with_its_parameters() -> None:
    newer = Message("gpu_on_fire", {"gpu": 3, "name": "alice"})
    assert messages.render(newer, "person") == "The server reported gpu on fire (gpu 3, name alice)."
    assert messages.render(Message("gpu_on_fire")) == "The server reported gpu on fire."


def test_parameters_are_never_read_as_a_template() -> None:
    evil = Message("connection_failed", {"address": "{detail}", "port": 22, "detail": "{port.__class__}"})
    assert messages.render(evil) == "Cannot connect to {detail} port 22: {port.__class__}."


def test_a_missing_parameter_breaks_nothing() -> None:
    assert messages.render(Message("connection_failed")) == "Cannot connect to ? port ?: ?."
    assert messages.render(None) == ""


def test_an_error_of_a_host_cannot_set_parameters_of_the_portal() -> None:
    """Its parameters may have the names of RemoteError's own arguments."""
    error = RemoteError(
        Message("busy", {"offered": "ssh-ed25519 AAAA", "permanent": 1, "code": "timeout"}), code="busy"
    )
    assert (error.code, error.permanent, error.offered) == ("busy", False, "")


def test_a_message_may_have_another_one_as_its_cause() -> None:
    error = Message(
        "removal_incomplete", {"cause": "os_error", "path": "/home", "detail": "is busy", "left": "the account"}
    )
    assert messages.render(error) == "/home: is busy. Not done yet: the account. Start the job again."
    loop = Message("removal_incomplete", {"cause": "removal_incomplete", "left": "all"})
    assert messages.render(loop, "person").startswith("? The removal")
