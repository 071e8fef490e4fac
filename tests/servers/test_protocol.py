import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.sshkeys import PublicKey
from servers import protocol, push_requests
from servers.protocol import BadAnswer, ContainerFact, Message, UserResult, parse_answer
from tests.hostscripts import reasons

PARTIAL = {
    "version": 1,
    "ok": False,
    "error": {"code": "partial", "reason": "people_failed", "params": {"count": 1}},
    "revision": 12,
    "digest": "a" * 64,
    "users": {"lqchen": {"host": "written", "container": "failed", "error": {"reason": "disk_full", "params": {}}}},
    "register": "written",
    "containers": {"lqchen": {"state": "running", "address": "10.0.3.160", "port": 22031}},
}


def answer(**changes: Any) -> bytes:
    return json.dumps({"version": 1, "ok": True} | changes).encode() + b"\n"


def test_a_frame_is_header_length_and_checksum() -> None:
    framed = protocol.frame({"version": 1, "user": "é"})
    header, _, body = framed.partition(b"\n")
    assert json.loads(body) == {"version": 1, "user": "é"}
    assert header == f"lab-iam 1 {len(body)} {hashlib.sha256(body).hexdigest()}".encode()


def test_a_request_that_is_too_long_is_not_framed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_REQUEST", 10)
    with pytest.raises(ValueError, match="longer than 10"):
        protocol.frame({"version": 1})


def test_set_keys_has_revision_digest_and_the_parts_of_each_key() -> None:
    users = protocol.plain({"bob": [], "alice": [PublicKey("ssh-ed25519", "AAAA", "laptop é")]})
    request = push_requests.build_set_keys(push_requests.Step(12, protocol.digest(users)), users, {"alice": 200000})
    assert request["users"]["alice"] == [{"type": "ssh-ed25519", "blob": "AAAA", "comment": "laptop é"}]
    assert request["revision"] == 12
    # as docs/protocol.md has it
    text = json.dumps(request["users"], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert request["digest"] == hashlib.sha256(text.encode()).hexdigest()


def test_the_digest_does_not_depend_on_the_order_of_people() -> None:
    assert protocol.digest({"a": [], "b": []}) == protocol.digest({"b": [], "a": []})


def test_a_partial_answer_is_read_completely() -> None:
    read = parse_answer(json.dumps(PARTIAL).encode())
    assert (read.ok, read.code, read.revision) == (False, "partial", 12)
    assert read.error == Message("people_failed", {"count": 1})
    assert read.users == {"lqchen": UserResult("written", "failed", Message("disk_full"))}
    assert read.users["lqchen"].failed and not read.users["lqchen"].is_elsewhere
    assert read.containers == {"lqchen": ContainerFact("running", "10.0.3.160", 22031)}


def test_z4_refused_keys_are_read_with_their_reasons() -> None:
    print_of = "SHA256:" + "a" * 43
    refused = {print_of: {"reason": "key_type", "params": {"type": "x"}}, "nonsense": {}, "SHA256:short": None}
    users = {"bob": {"host": "written", "container": "absent", "error": None, "refused": refused}}
    result = parse_answer(json.dumps(PARTIAL | {"users": users}).encode()).users["bob"]
    assert result.refused == ((print_of, Message("key_type", {"type": "x"})),) and not result.failed


@pytest.mark.parametrize("wrong", [5, [], {str(number): {} for number in range(5000)}], ids=["5", "list", "many"])
def test_z4_other_values_of_refused_are_ignored(wrong: object) -> None:
    users = {"bob": {"host": "written", "container": "absent", "error": None, "refused": wrong}}
    assert parse_answer(json.dumps(PARTIAL | {"users": users}).encode()).users["bob"].refused == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"not json",
        b"[1]",
        b"[" * 200_000,
        b"\xff\xfe",
        b"{}",
        answer(version=0),
        answer(version=2),
        answer(version=True),
        answer(ok=1),
        answer(ok=False),
        answer(ok=False, error="no"),
        answer(revision=-1),
        answer(revision=2**60),
        answer(revision="12"),
        answer(revision=True),
        answer(digest="x" * 64),
        answer(digest=5),
        answer(users=[]),
        answer(users={"alice": "written"}),
        answer(users={"alice": {"host": "done", "container": "written", "error": ""}}),
        answer(containers={"alice": []}),
        answer(register="perhaps"),
    ],
    ids=range(24),
)
def test_an_answer_of_the_wrong_kind_is_refused(data: bytes) -> None:
    with pytest.raises(BadAnswer) as refused:
        parse_answer(data)
    assert len(str(refused.value)) < 200 and "\n" not in str(refused.value)


def test_an_answer_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_ANSWER", 20)
    with pytest.raises(BadAnswer, match="too long"):
        parse_answer(answer())


def test_texts_of_a_host_are_cut_and_made_printable() -> None:
    params = {"error": "a\nb\u202e" + "y" * 9999, "Bad Name": 1, "flag": True, "list": [], "count": 2, "huge": 2**64}
    error = {"reason": "os_error", "params": params}
    read = parse_answer(
        answer(
            labhost="1.0\x1b[31m" + "x" * 999,
            users={"alice": {"host": "failed", "container": "absent", "error": error}},
        )
    )
    assert read.labhost.startswith("1.0?[31m") and len(read.labhost) == 40
    found = read.users["alice"].error
    assert found and found.params.keys() == {"error", "count"} and found.params["count"] == 2
    assert str(found.params["error"]).startswith("a?b?") and len(str(found.params["error"])) == 300


def test_a_message_of_a_host_has_a_bounded_number_of_params() -> None:
    many = {"reason": "os_error", "params": {f"p{number}": number for number in range(100)}}
    found = Message.from_json(many)
    assert found and len(found.params) == protocol.MAX_PARAMS


@pytest.mark.parametrize("error", ["no home", [], {"reason": "No Slug"}, {"reason": "x" * 65}, {}])
def test_an_error_of_a_person_that_is_no_message_is_not_lost(error: object) -> None:
    read = parse_answer(answer(users={"alice": {"host": "absent", "container": "absent", "error": error}}))
    assert read.users["alice"].error == Message("unknown") and not read.users["alice"].is_elsewhere


def test_a_message_is_stored_and_read_back() -> None:
    message = Message("disk_full", {"path": "/home", "count": 3})
    assert Message.from_json(json.loads(json.dumps(message.as_json()))) == message
    assert Message.from_json(None) is None


def test_fields_that_a_newer_host_added_are_ignored() -> None:
    read = parse_answer(answer(users={"alice": {"host": "written", "container": "absent", "since": 1}}, gpus=[1]))
    assert read.users == {"alice": UserResult("written", "absent")}


def test_the_build_equals_the_one_that_a_host_with_these_files_reports() -> None:
    folder = Path(__file__).resolve().parents[2] / "hostscripts/labhost"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    words = [sys.executable, "-c", "from labhost.system.build import build_digest; print(build_digest())"]
    found = subprocess.run(words, cwd=folder.parent, capture_output=True, text=True, timeout=30, check=True)
    assert found.stdout.strip() == protocol.build_digest(files)
    assert protocol.build_digest(files | {"cli.py": b""}) != protocol.build_digest(files)


def test_invalid_names_and_addresses_are_dropped() -> None:
    there = {"state": "rooted", "address": "10.0.3.1; id", "port": "22"}
    read = parse_answer(answer(containers={"../x": there, "root": there, "alice": there}))
    assert read.containers == {"alice": ContainerFact("unknown", "", 0)}


def test_an_unknown_error_code_becomes_failed() -> None:
    read = parse_answer(answer(ok=False, error={"code": "sorry", "reason": "sorry_too", "params": {}}))
    assert (read.code, read.error) == ("failed", Message("sorry_too"))


def test_a_refusal_without_a_reason_has_its_code_as_reason() -> None:
    assert parse_answer(answer(ok=False, error={"code": "busy"})).error == Message("busy")


def test_every_reason_of_a_host_is_documented() -> None:
    """`python -m tests.hostscripts.reasons` writes the table."""
    assert reasons.in_page() == reasons.table()
    assert {"disk_full", "key_malformed", "version_unsupported"} <= set(
        re.findall(r"^\| `(\w+)`", reasons.table(), re.M)
    )


def test_every_reason_of_a_host_is_known_to_the_portal() -> None:
    for reason, params in re.findall(r"^\| `([^`]+)` \| ([^|]*) \|", reasons.table(), re.M):
        names = [name for name in params.split(", ") if name]
        message = Message(reason, dict.fromkeys(names, 1))
        assert Message.from_json(message.as_json()) == message


def test_every_code_of_a_host_is_known_and_documented() -> None:
    assert reasons.kinds() | {"partial"} == protocol.CODES
    assert all(f"| `{code}` |" in reasons.PAGE.read_text() for code in protocol.CODES)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*PARTIAL, "name", "driver"]), json_values))
def test_any_output_of_a_host_is_an_answer_or_a_refusal(changes: dict[str, Any]) -> None:
    try:
        read = parse_answer(json.dumps(PARTIAL | changes).encode())
    except BadAnswer:
        return
    messages = [read.error, *(user.error for user in read.users.values())]
    params = [value for message in messages if message for value in message.params.values()]
    texts = [read.name, read.driver, *(value for value in params if isinstance(value, str))]
    assert all(text.isprintable() and len(text) <= protocol.MAX_TEXT for text in texts)
