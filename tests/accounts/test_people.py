import pytest
from pytest_django.fixtures import Settings

from accounts.directory import Person
from accounts.models import AuditEvent, Port, SSHKey, User
from accounts.numbers import NumberRange
from accounts.services import keys, people
from tests.accounts.keys import line


def admit(name: str = "alice", directory_id: str = "id-of-alice", is_staff: bool | None = None) -> User:
    user = people.admit(Person(name, directory_id, name.title(), is_staff))
    assert user is not None
    return user


@pytest.mark.django_db
def test_the_first_sign_in_assigns_a_port_and_subuids() -> None:
    user = admit()
    assert user.port.number and user.subuids.start
    assert user.display_name == "Alice" and not user.has_usable_password()
    assert [event.verb for event in AuditEvent.objects.all()] == ["numbers.issued", "person.created"]


@pytest.mark.django_db
def test_the_second_sign_in_changes_nothing(django_assert_num_queries: object) -> None:
    first = admit()
    with django_assert_num_queries(3):  # type: ignore[operator]  # the person, and an empty transaction
        second = admit()
    assert (first.pk, first.port) == (second.pk, second.port)


@pytest.mark.django_db
def test_a_name_changed_in_the_directory_is_the_same_person() -> None:
    before = admit("alice")
    after = admit("alice-archer")
    assert before.pk == after.pk and after.username == "alice"


@pytest.mark.django_db
def test_staff_follows_the_staff_group_and_changes_are_audited() -> None:
    assert admit(is_staff=True).is_superuser
    user = admit(is_staff=False)
    user.refresh_from_db()
    assert not user.is_staff and not user.is_superuser
    assert AuditEvent.objects.filter(verb="person.staff").count() == 1


@pytest.mark.django_db
def test_without_a_staff_group_is_staff_stays() -> None:
    User.objects.create_user("alice", directory_id="id-of-alice", is_staff=True)
    assert admit(is_staff=None).is_staff


@pytest.mark.django_db
def test_a_locked_out_person_cannot_sign_in() -> None:
    people.set_active(actor="warden", user=admit(), active=False)
    assert people.admit(Person("alice", "id-of-alice", "Alice")) is None


def test_o3_a_new_person_with_a_used_name_inherits_nothing(alice: User) -> None:
    keys.add_keys(actor="alice", user=alice, pasted=line())
    with pytest.raises(people.PersonRefused, match="belonged to somebody else"):
        admit("alice", "another-id")
    assert User.objects.count() == 1
    event = AuditEvent.objects.get(verb="person.refused")
    assert event.detail["directory_id"] == "another-id"


def test_o3_once_the_name_is_free_the_new_person_starts_with_nothing(alice: User) -> None:
    keys.add_keys(actor="alice", user=alice, pasted=line())
    port, start = alice.port.number, alice.subuids.start
    people.set_active(actor="warden", user=alice, active=False)
    people.delete(actor="warden", user=alice)
    new = admit("alice", "another-id")
    assert new.port.number != port and new.subuids.start != start
    assert not new.ssh_keys.exists() and not new.is_staff
    assert keys.current_state().users == {}


def test_o3_a_local_account_is_not_taken_over_from_the_directory(staff: User) -> None:
    with pytest.raises(people.PersonRefused):
        admit("warden", "some-id")


@pytest.mark.django_db
def test_c2_exhausted_numbers_refuse_people_but_not_the_staff(settings: Settings) -> None:
    settings.LAB_PORTS = NumberRange(22000, 22000)
    admit()
    with pytest.raises(people.PersonRefused, match="Ask the lab's staff to widen LAB_PORTS"):
        admit("bob", "id-of-bob")
    assert admit("boss", "id-of-boss", is_staff=True).is_staff


def test_locking_out_increases_the_revision_and_leaves_the_keys(alice: User) -> None:
    keys.add_keys(actor="alice", user=alice, pasted=line())
    assert people.set_active(actor="warden", user=alice, active=False)
    assert keys.current_revision() == 2 and keys.current_state().users == {}
    assert people.set_active(actor="warden", user=alice, active=True)
    assert keys.current_revision() == 3
    assert [key.line for key in keys.current_state().users["alice"]] == [line()]
    events = AuditEvent.objects.filter(object="alice", actor="warden")
    assert [event.verb for event in events] == ["person.unlocked", "person.locked_out"]


def test_locking_out_twice_has_no_further_effect(alice: User) -> None:
    assert people.set_active(actor="warden", user=alice, active=False)
    assert not people.set_active(actor="warden", user=alice, active=False)
    assert keys.current_revision() == 1


def test_only_the_locked_out_can_be_deleted(alice: User) -> None:
    with pytest.raises(people.PersonInUse, match="Lock this person out first"):
        people.delete(actor="warden", user=alice)


def test_a_deletion_removes_keys_and_leaves_tombstones(alice: User) -> None:
    key = keys.add_keys(actor="alice", user=alice, pasted=line()).added[0]
    port = alice.port.number
    people.set_active(actor="warden", user=alice, active=False)
    before = keys.current_revision()
    people.delete(actor="warden", user=alice)
    assert not SSHKey.objects.exists() and keys.current_revision() == before + 1
    assert Port.objects.get(number=port).user is None
    assert AuditEvent.objects.filter(verb="key.removed", detail__fingerprint=key.fingerprint).exists()
    assert AuditEvent.objects.get(verb="person.deleted").detail["directory_id"] == "id-of-alice"
