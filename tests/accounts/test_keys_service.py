from collections.abc import Iterator

import pytest
from django.db import IntegrityError, transaction
from pytest_django import DjangoCaptureOnCommitCallbacks

from accounts import sshkeys
from accounts.models import AuditEvent, KeyRange, SSHKey, User
from accounts.services import keys, people
from accounts.signals import keys_changed
from accounts.sshkeys import KeyRefused
from tests.accounts.keys import fingerprint, line


def add(user: User, pasted: str) -> keys.AddedKeys:
    return keys.add_keys(actor=user.username, user=user, pasted=pasted)


def test_a_paste_is_one_revision(alice: User) -> None:
    before = keys.current_revision()
    done = add(alice, f"{line()}\n{line(1)}")
    assert [key.fingerprint for key in done.added] == [fingerprint(line()), fingerprint(line(1))]
    assert keys.current_revision() == before + 1
    assert {one.start for one in KeyRange.objects.open()} == {before + 1}


def test_adding_a_known_key_changes_nothing(alice: User) -> None:
    add(alice, line())
    before = keys.current_revision()
    done = add(alice, line(comment="renamed"))
    assert (len(done.added), len(done.already)) == (0, 1)
    assert keys.current_revision() == before


def test_each_key_leaves_an_audit_row(alice: User) -> None:
    done = add(alice, line())
    event = AuditEvent.objects.get(verb="key.added")
    assert (event.actor, event.object) == ("alice", "alice")
    assert event.detail["fingerprint"] == done.added[0].fingerprint


def test_one_bad_line_rejects_the_whole_paste(alice: User) -> None:
    with pytest.raises(KeyRefused):
        add(alice, f"{line()}\nssh-dss AAAA")
    assert not SSHKey.objects.exists() and keys.current_revision() == 0


def test_k10_the_key_of_another_person_is_refused_without_naming_the_owner(alice: User, bob: User) -> None:
    add(alice, line())
    with pytest.raises(KeyRefused) as caught:
        add(bob, f"{line(1)}\n{line(comment='bobs')}")
    assert "alice" not in str(caught.value) and "another account" in str(caught.value)
    assert not bob.ssh_keys.exists()


def test_k10_staff_can_see_who_pasted_the_key_of_another_person(alice: User, bob: User) -> None:
    add(alice, line())
    with pytest.raises(KeyRefused):
        add(bob, line())
    event = AuditEvent.objects.get(verb="key.refused")
    assert (event.actor, event.object) == ("bob", "bob")
    assert event.detail == {"fingerprint": fingerprint(line()), "reason": "in use", "owner": "alice"}


def test_k10_fingerprints_are_unique_in_the_database(alice: User, bob: User) -> None:
    key = add(alice, line()).added[0]
    with pytest.raises(IntegrityError, match=r"fingerprint|key_active_once"), transaction.atomic():
        SSHKey.objects.create(user=bob, key_type=key.key_type, blob=key.blob, fingerprint=key.fingerprint)


def test_a_removed_key_can_be_added_again(alice: User) -> None:
    key = add(alice, line()).added[0]
    assert keys.revoke_key(actor="alice", key=key)
    key.refresh_from_db()
    assert key.ranges.get().until == keys.current_revision() == 2 and key.revoked_at is not None
    assert keys.current_state().users == {}
    assert len(add(alice, line()).added) == 1


def test_removing_a_key_twice_has_no_further_effect(alice: User) -> None:
    key = add(alice, line()).added[0]
    assert keys.revoke_key(actor="alice", key=key)
    assert not keys.revoke_key(actor="alice", key=key)
    assert keys.current_revision() == 2
    assert AuditEvent.objects.filter(verb="key.removed").count() == 1


def test_a_person_has_a_limited_number_of_keys(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sshkeys, "MAX_KEYS", 2)
    add(alice, f"{line()}\n{line(1)}")
    with pytest.raises(KeyRefused, match="at most 2 keys"):
        add(alice, line(2))


def test_the_keys_are_those_of_active_people_with_a_port(alice: User, bob: User, charlie: User, staff: User) -> None:
    add(alice, f"{line()}\n{line(1)}")
    add(charlie, line(2))
    people.set_active(actor="warden", user=charlie, active=False)
    state = keys.current_state()
    assert {name: [key.line for key in held] for name, held in state.users.items()} == {
        "alice": [line(), line(1)],
    }
    assert state.revision == keys.current_revision()


def test_reading_all_keys_costs_three_queries(alice: User, bob: User, django_assert_num_queries: object) -> None:
    add(alice, f"{line()}\n{line(1)}")
    with django_assert_num_queries(3):  # type: ignore[operator]
        keys.current_state()


def test_a_locked_out_person_cannot_add_keys(alice: User) -> None:
    stale = User.objects.get(pk=alice.pk)
    people.set_active(actor="warden", user=alice, active=False)
    with pytest.raises(KeyRefused, match="locked"):
        add(stale, line())


@pytest.fixture
def revisions() -> Iterator[list[int]]:
    revisions: list[int] = []

    def listen(revision: int, **kwargs: object) -> None:
        revisions.append(revision)

    keys_changed.connect(listen, weak=False, dispatch_uid="test")
    yield revisions
    keys_changed.disconnect(dispatch_uid="test")


def test_listeners_are_called_after_the_commit(
    alice: User, revisions: list[int], django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks() as callbacks:
        add(alice, line())
    assert revisions == []
    for callback in callbacks:
        callback()
    assert revisions == [1]


@pytest.mark.django_db(transaction=True)
def test_a_listener_that_fails_does_not_undo_the_change(caplog: pytest.LogCaptureFixture) -> None:
    def fail(**kwargs: object) -> None:
        raise RuntimeError("the broker is gone")

    keys_changed.connect(fail, weak=False, dispatch_uid="fail")
    try:
        user = User.objects.create_user("alice", directory_id="a")
        add(user, line())
    finally:
        keys_changed.disconnect(dispatch_uid="fail")
    assert SSHKey.objects.count() == 1
    assert "the broker is gone" in caplog.text
