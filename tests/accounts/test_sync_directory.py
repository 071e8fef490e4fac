import io

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django.fixtures import Settings

from accounts import backends
from accounts.models import AuditEvent, User
from accounts.services import people
from tests.accounts.conftest import free_port, password_of
from tests.lab.directory import Directory

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("sync_directory", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def known(directory: Directory, rf: object) -> Directory:
    """Alice and Bob have signed in; Charlie is in the directory only."""
    for name in ("alice", "bob"):
        assert backends.check_password(rf.post("/"), name, password_of(name)) is not None  # type: ignore[attr-defined]
    return directory


def test_a_new_full_name_is_stored(known: Directory) -> None:
    known.rename("alice", "Alice Archer-Brown")
    assert "updated: alice" in run()
    assert User.objects.get(username="alice").display_name == "Alice Archer-Brown"
    event = AuditEvent.objects.get(verb="person.renamed")
    assert event.detail == {"from": "Alice Archer", "to": "Alice Archer-Brown"}


def test_the_second_run_changes_nothing(known: Directory) -> None:
    assert run() == run() == "0 updated, 2 unchanged, 0 not in the directory\n"


def test_people_who_never_signed_in_are_not_created(known: Directory) -> None:
    run()
    assert sorted(User.objects.values_list("username", flat=True)) == ["alice", "bob"]


def test_a_dry_run_only_reports_changes(known: Directory) -> None:
    known.rename("alice", "Alice Archer-Brown")
    assert "would update: alice" in run("--dry-run")
    assert User.objects.get(username="alice").display_name == "Alice Archer"


def test_o2_a_person_missing_in_the_directory_is_reported_and_stays(known: Directory) -> None:
    known.remove_user("bob")
    assert "not in the directory: bob" in run()
    assert User.objects.get(username="bob").is_active


def test_o3_a_new_person_with_the_same_name_is_another_person(known: Directory) -> None:
    known.remove_user("bob")
    known.add_user("bob", "Bob Another", "x")
    assert "not in the directory: bob" in run()
    assert User.objects.get(username="bob").display_name == "Bob Baker"


def test_a5_directory_down_is_exit_status_1_and_changes_nothing(known: Directory, settings: Settings) -> None:
    settings.LDAP_URL = f"ldap://127.0.0.1:{free_port()}"
    with pytest.raises(CommandError, match="directory unavailable") as caught:
        run()
    assert caught.value.returncode == 1


def test_without_a_directory_the_command_exits_with_a_usage_error(settings: Settings) -> None:
    with pytest.raises(CommandError, match="LDAP_URL is not set") as caught:
        run()
    assert caught.value.returncode == 2


def test_the_service_does_nothing_without_a_directory(alice: User) -> None:
    assert people.sync_names(actor="worker") == people.SyncNames()


def test_no_transaction_is_open_during_the_directory_query(known: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import connection

    from accounts import directory as edge

    depth: list[int] = []
    real = edge.look_up

    def watched(names: object) -> object:
        depth.append(len(connection.savepoint_ids))
        return real(names)  # type: ignore[arg-type]

    monkeypatch.setattr(edge, "look_up", watched)
    before = len(connection.savepoint_ids)
    run()
    assert depth == [before]
