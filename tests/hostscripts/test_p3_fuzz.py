"""Case P3: whatever is sent, only an expected error or a sound push comes out."""

from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from labhost import delivery, frame, names
from labhost.errors import LabhostError

from tests.hostscripts.test_frame import framed, read
from tests.hostscripts.test_keys import ED

PROFILE = settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
TEXT = st.text(st.characters(), max_size=12)  # lone surrogates too
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries(
    {"type": st.just(ED[0]) | VALUES, "blob": st.just(ED[1]) | st.binary(max_size=60).map(bytes.hex) | VALUES},
    optional={"comment": TEXT | VALUES, "options": VALUES},
)
USERS = st.dictionaries(
    st.sampled_from(["alice", "bob", "root", "-rf", ".."]) | TEXT,
    st.lists(ENTRIES | VALUES, max_size=3) | VALUES,
    max_size=4,
)
GOOD = frame.build({"version": 1, "revision": 1, "users": {"alice": [{"type": ED[0], "blob": ED[1]}]}})


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A good frame, cut, changed and lengthened; or the right frame of a wrong body; or anything."""
    data = bytearray(draw(st.sampled_from([GOOD, framed(draw(st.binary(max_size=80)))])))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 5))] = draw(st.binary(max_size=5))
    return bytes(data) if draw(st.integers(0, 9)) else draw(st.binary(max_size=200))


@PROFILE
@given(frames())
def test_p3_frames(data: bytes) -> None:
    with suppress(LabhostError):
        assert read(data)["version"] == 1


@PROFILE
@given(st.integers(-1, 2) | VALUES, USERS | VALUES, st.booleans())
def test_p3_payloads(revision: Any, users: Any, right: bool) -> None:
    try:
        request = read(frame.build({"version": 1, "revision": revision, "users": users}))
        request["digest"] = frame.digest_of(request.get("users")) if right else users
        push = delivery.parse(request)
    except LabhostError:
        return
    assert not push.users.keys() & push.errors.keys()
    assert push.users.keys() | push.errors.keys() == users.keys()
    assert all(names.is_name(name) for name in push.users)
    owners = [key.fingerprint for keys in push.users.values() for key in keys]
    assert len(owners) == len(set(owners)), "one key, two people"
