import pytest
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from accounts.models import Port, SubuidRange, User
from accounts.numbers import SUBUID_COUNT, NumberRange
from accounts.services import numbers, people


@pytest.mark.parametrize("text", ["", "22000", "a-b", "1-2-3", "-5-7", "30000-20000", "1 - 2", "9999999999999-2"])
def test_an_invalid_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="range"):
        NumberRange.parse(text)


def test_a_range_must_hold_a_block() -> None:
    with pytest.raises(ValueError, match="single block of 65536"):
        NumberRange.parse("100000-100100", SUBUID_COUNT)


def test_numbers_increase() -> None:
    assert NumberRange(10, 19).first_free([]) == 10
    assert NumberRange(10, 19).first_free([10, 11]) == 12
    assert NumberRange(10, 19).first_free([11]) == 10
    assert NumberRange(10, 19).first_free(range(10, 20)) is None


@given(
    st.integers(0, 40),
    st.integers(1, 6),
    st.integers(1, 60),
    st.sets(st.integers(0, 120), max_size=20),
)
def test_a_free_block_overlaps_no_issued_one(first: int, size: int, length: int, issued: set[int]) -> None:
    numbers = NumberRange(first, first + size + length - 1, size)
    free = [
        start
        for start in range(first, numbers.last - size + 2, size)
        if all(abs(start - other) >= size for other in issued)
    ]
    assert numbers.first_free(issued) == (free[0] if free else None)
    assert numbers.count_free(issued) == len(free)
    below = max((start for start in issued if start <= numbers.last), default=None)
    later = [start for start in free if below is None or start > below]
    assert numbers.next_after(below) == (later[0] if later else None)


def person(name: str) -> User:
    return User.objects.create_user(name, directory_id=name)


@pytest.mark.django_db
def test_c2_the_first_number_is_issued_first(settings: Settings) -> None:
    port, block = numbers.assign(person("alice"))
    assert (port.number, block.start) == (settings.LAB_PORTS.first, settings.LAB_SUBUIDS.first)
    assert (port.username, block.username) == ("alice", "alice")


def test_assigning_again_returns_the_same_numbers(alice: User) -> None:
    assert numbers.assign(alice) == (alice.port, alice.subuids)
    assert Port.objects.count() == SubuidRange.objects.count() == 1


@pytest.mark.django_db
def test_c2_after_the_last_number_there_is_a_clear_error(settings: Settings) -> None:
    settings.LAB_PORTS = NumberRange(22000, 22001)
    assert [numbers.assign(person(name))[0].number for name in ("alice", "bob")] == [22000, 22001]
    with pytest.raises(numbers.NumbersExhausted, match=r"All ports of 22000-22001 are issued.*LAB_PORTS"):
        numbers.assign(person("charlie"))
    assert SubuidRange.objects.count() == 2, "a partial assignment was saved"


@pytest.mark.django_db
def test_c2_exhausted_subuids_give_a_clear_error(settings: Settings) -> None:
    settings.LAB_SUBUIDS = NumberRange(100000, 100000 + 2 * SUBUID_COUNT - 2, SUBUID_COUNT)
    numbers.assign(person("alice"))
    with pytest.raises(numbers.NumbersExhausted, match="LAB_SUBUIDS"):
        numbers.assign(person("bob"))
    assert numbers.left() == (settings.LAB_PORTS.blocks - 1, 0)


@pytest.mark.django_db
def test_c2_a_smaller_range_continues_within_it(settings: Settings) -> None:
    settings.LAB_PORTS = NumberRange(22000, 29999)
    Port.objects.create(number=29000, username="old")
    settings.LAB_PORTS = NumberRange(22000, 22500)
    assert numbers.assign(person("alice"))[0].number == 22000


@pytest.mark.django_db
def test_c2_a_moved_range_never_overlaps_an_old_block(settings: Settings) -> None:
    SubuidRange.objects.create(start=1_000_000, username="old")
    settings.LAB_SUBUIDS = NumberRange(1_000_100, 2_000_000, SUBUID_COUNT)
    assert numbers.assign(person("alice"))[1].start == 1_000_100 + SUBUID_COUNT


@pytest.mark.django_db
def test_gaps_are_used_only_after_the_end_of_the_range(settings: Settings) -> None:
    settings.LAB_PORTS = NumberRange(22000, 22002)
    Port.objects.create(number=22001, username="old")
    assert [numbers.assign(person(name))[0].number for name in ("alice", "bob")] == [22002, 22000]


def test_c3_after_a_deletion_nothing_is_reissued(alice: User) -> None:
    port, start = alice.port.number, alice.subuids.start
    people.set_active(actor="warden", user=alice, active=False)
    people.delete(actor="warden", user=alice)
    new_port, new_block = numbers.assign(person("bob"))
    assert new_port.number != port and new_block.start != start
    assert Port.objects.get(number=port).user is None
    assert Port.objects.get(number=port).username == "alice"
    assert SubuidRange.objects.get(start=start).username == "alice"


def test_c3_a_tombstone_cannot_be_deleted(alice: User) -> None:
    for row in (alice.port, alice.subuids):
        with pytest.raises(TypeError, match="never deleted"):
            row.delete()


def test_the_database_refuses_invalid_numbers(alice: User) -> None:
    for make in (
        lambda: Port.objects.create(number=80, username="x"),
        lambda: SubuidRange.objects.create(start=2**32 - SUBUID_COUNT, username="x"),
        lambda: SubuidRange.objects.create(start=0, username="x"),
        lambda: Port.objects.create(number=23000, username="x", user=alice),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            make()
