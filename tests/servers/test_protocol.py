import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.sshkeys import PublicKey
from servers import protocol
from servers.protocol import BadAnswer, ContainerFact, UserResult, parse_answer

PARTIAL = {
    "version": 1,
    "ok": False,
    "error": {"code": "partial", "message": "1 people were not served"},
    "revision": 12,
    "digest": "a" * 64,
    "users": {"lqchen": {"host": "written", "container": "failed", "error": "container: the disk is full"}},
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


def test_set_keys_carries_revision_digest_and_the_parts_of_each_key() -> None:
    users = protocol.plain({"bob": [], "alice": [PublicKey("ssh-ed25519", "AAAA", "laptop é")]})
    request = protocol.build_set_keys(12, users, {"alice": 200000}, protocol.digest(users))
    assert request["users"]["alice"] == [{"type": "ssh-ed25519", "blob": "AAAA", "comment": "laptop é"}]
    assert request["revision"] == 12
    # as the contract writes it down
    text = json.dumps(request["users"], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert request["digest"] == hashlib.sha256(text.encode()).hexdigest()


def test_the_digest_does_not_depend_on_the_order_of_people() -> None:
    assert protocol.digest({"a": [], "b": []}) == protocol.digest({"b": [], "a": []})


def test_a_partial_answer_is_read_whole() -> None:
    read = parse_answer(json.dumps(PARTIAL).encode())
    assert (read.ok, read.code, read.revision) == (False, "partial", 12)
    assert read.users == {"lqchen": UserResult("written", "failed", "container: the disk is full")}
    assert read.users["lqchen"].failed and not read.users["lqchen"].is_elsewhere
    assert read.containers == {"lqchen": ContainerFact("running", "10.0.3.160", 22031)}


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
    ids=range(23),
)
def test_an_answer_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(BadAnswer) as refused:
        parse_answer(data)
    assert len(str(refused.value)) < 200 and "\n" not in str(refused.value)


def test_an_answer_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_ANSWER", 20)
    with pytest.raises(BadAnswer, match="too long"):
        parse_answer(answer())


def test_texts_of_a_host_are_cut_and_made_printable() -> None:
    read = parse_answer(
        answer(
            labhost="1.0\x1b[31m" + "x" * 999,
            users={"alice": {"host": "failed", "container": "absent", "error": "a\nb\u202e" + "y" * 9999}},
        )
    )
    assert read.labhost.startswith("1.0?[31m") and len(read.labhost) == 40
    assert read.users["alice"].error.startswith("a?b?") and len(read.users["alice"].error) == 300


def test_names_that_are_no_names_and_addresses_that_are_none_are_dropped() -> None:
    there = {"state": "rooted", "address": "10.0.3.1; id", "port": "22"}
    read = parse_answer(answer(containers={"../x": there, "root": there, "alice": there}))
    assert read.containers == {"alice": ContainerFact("unknown", "", 0)}


def test_an_unknown_error_code_becomes_failed() -> None:
    assert parse_answer(answer(ok=False, error={"code": "sorry", "message": "m"})).code == "failed"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*PARTIAL, "name", "driver"]), json_values))
def test_whatever_a_host_answers_is_an_answer_or_a_refusal(changes: dict[str, Any]) -> None:
    try:
        read = parse_answer(json.dumps(PARTIAL | changes).encode())
    except BadAnswer:
        return
    texts = [read.message, read.name, read.driver, *(user.error for user in read.users.values())]
    assert all(text.isprintable() and len(text) <= protocol.MAX_TEXT for text in texts)
