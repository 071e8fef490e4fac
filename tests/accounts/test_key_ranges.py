"""From which to which revision servers should hold a key: stored with each change."""

import pytest
from django.db import IntegrityError, transaction

from accounts.models import KeyRange, SSHKey, User, wanted_between
from accounts.services import keys, numbers, people, revision
from tests.accounts.keys import line

pytestmark = pytest.mark.django_db


def give_key(user: User, number: int = 0) -> SSHKey:
    return keys.add_keys(actor=user.username, user=user, pasted=line(number)).added[0]


def spans(key: SSHKey) -> list[tuple[int, int | None]]:
    return list(key.ranges.order_by("start").values_list("start", "until"))


def test_a_key_range_lasts_from_addition_to_removal(alice: User) -> None:
    key, other = give_key(alice, 1), give_key(alice, 2)
    assert (spans(key), spans(other)) == ([(1, None)], [(2, None)])
    keys.revoke_key(actor="alice", key=key)
    assert (spans(key), spans(other)) == ([(1, 3)], [(2, None)])


def test_o1_locking_out_ends_a_range_and_unlocking_starts_a_new_one(alice: User, bob: User) -> None:
    key, removed, other = give_key(alice, 1), give_key(alice, 2), give_key(bob, 3)
    keys.revoke_key(actor="alice", key=removed)
    people.set_active(actor="warden", user=alice, active=False)
    people.set_active(actor="warden", user=alice, active=True)
    assert spans(key) == [(1, 5), (6, None)]
    assert spans(removed) == [(2, 4)], "a removed key stays removed"
    assert spans(other) == [(3, None)]


def test_a_key_without_a_port_has_no_range(staff: User) -> None:
    key = give_key(staff)
    assert spans(key) == [] and keys.current_state().users == {}
    numbers.assign(staff)
    assert spans(key) == [(2, None)] and list(keys.current_state().users) == [staff.username]


def test_the_ranges_give_the_keys_at_any_revision(alice: User) -> None:
    first, second = give_key(alice, 1), give_key(alice, 2)
    keys.revoke_key(actor="alice", key=first)
    wanted = [{one.key for one in KeyRange.objects.wanted_at(number)} for number in range(4)]
    assert wanted == [set(), {first}, {first, second}, {second}]
    between = KeyRange.objects.filter(wanted_between(3, 9)).values_list("key", flat=True)
    assert list(between) == [second.pk]
    for one in KeyRange.objects.all():
        for number in range(4):
            assert one.covers(number, number) == (one in KeyRange.objects.wanted_at(number))


def test_keys_are_read_again_if_a_person_is_deleted_meanwhile(
    alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_key(alice, 1)
    give_key(bob, 2)
    read, reads = revision.current, list[int]()

    def read_and_delete() -> int:
        """The first reader sees the revision from before the deletion."""
        reads.append(read())
        if len(reads) == 1:
            people.set_active(actor="warden", user=alice, active=False)
            people.delete(actor="warden", user=alice)
        return reads[-1]

    monkeypatch.setattr(revision, "current", read_and_delete)
    state = keys.current_state()
    assert (state.revision, set(state.users)) == (read(), {"bob"}) and state.revision > reads[0]


def test_the_database_refuses_a_second_open_range_and_one_that_ends_before_it_starts(alice: User) -> None:
    key = give_key(alice)
    with pytest.raises(IntegrityError, match=r"key_range_open_once|key_id"), transaction.atomic():
        KeyRange.objects.create(key=key, start=7)
    with pytest.raises(IntegrityError, match="key_range_ends_after_its_start"), transaction.atomic():
        KeyRange.objects.filter(key=key).update(until=1, ended_at=key.created_at)
