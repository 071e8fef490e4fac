import pytest
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from accounts import names
from accounts.models import AuditEvent, User
from accounts.services import audit, keys
from tests.accounts.keys import line


@pytest.mark.parametrize("name", ["alice", "a", "_x", "lqchen", "a-b_c9", "a" * 32])
def test_a_valid_name_is_accepted(name: str) -> None:
    assert names.clean(name) == name


def test_a3_capitals_are_the_same_name() -> None:
    assert names.clean("ALICE") == "alice"


BAD = [
    "",
    "root",
    "iam",
    "register",
    "-rf",
    "..",
    "a" * 33,
    "a b",
    "alice\n",
    "9lives",
    "älice",
    "\uff21LICE",
    "a.b",
    "\u212aevin",
]


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(names.NameRefused, match="not a name"):
        names.clean(name)


@pytest.mark.django_db
@pytest.mark.parametrize("name", [name for name in BAD if len(name) <= 32] + ["Alice"])
def test_the_database_refuses_invalid_names_too(name: str) -> None:
    with pytest.raises(IntegrityError, match="user_name_is_linux_safe"), transaction.atomic():
        User(username=name).save()


def test_a_person_with_keys_cannot_be_deleted_by_accident(alice: User) -> None:
    keys.add_keys(actor="alice", user=alice, pasted=line())
    with pytest.raises(ProtectedError):
        alice.delete()


@pytest.mark.django_db
def test_the_audit_log_is_append_only() -> None:
    event = audit.record(actor="alice", verb="key.added", object="alice")
    for attempt in (
        event.save,
        event.delete,
        AuditEvent.objects.all().delete,
        lambda: AuditEvent.objects.update(actor="bob"),
    ):
        with pytest.raises(TypeError, match="append only"):
            attempt()


def test_every_model_has_a_readable_text(alice: User) -> None:
    key = keys.add_keys(actor="alice", user=alice, pasted=line()).added[0]
    assert str(alice) == "alice"
    assert str(key) == f"{key.fingerprint} (me@laptop)"
    assert str(alice.port) == str(alice.port.number)
    assert str(alice.subuids) == str(alice.subuids.start)
    assert str(AuditEvent.objects.latest("pk")) == "alice key.added alice"
