from html import unescape

import pytest
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEvent, Port, SSHKey, User
from accounts.services import keys, people
from tests.accounts.keys import line

LISTS = ["user", "sshkey", "port", "subuidrange", "auditevent"]


@pytest.fixture
def client(client: Client, staff: User) -> Client:
    client.force_login(staff, backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def key(alice: User) -> SSHKey:
    return keys.add_keys(actor="alice", user=alice, pasted=line()).added[0]


def act(client: Client, model: str, action: str, *rows: object, **more: str) -> str:
    fields = {"action": action, "_selected_action": [row.pk for row in rows], **more}  # type: ignore[attr-defined]
    answer = client.post(reverse(f"admin:accounts_{model}_changelist"), fields, follow=True)
    assert answer.status_code == 200
    return unescape(answer.content.decode())


def test_the_admin_index_shows_counts(client: Client, key: SSHKey, bob: User) -> None:
    page = client.get("/admin/").content.decode()
    metrics = {section.title: section.metrics for section in client.get("/admin/").context["sections"]}
    shown = {metric.label: metric.value for metric in metrics["People"]}
    assert shown == {
        "Active people": 3,
        "Locked out": 0,
        "Active keys": 1,
        "Ports left": 7998,
        "Subordinate id ranges left": 17507,
    }
    assert "Ports left" in page and "lab_iam/admin.css" in page


def test_the_apps_of_the_portal_come_first(client: Client, staff: User) -> None:
    apps = [app["app_label"] for app in client.get("/admin/").context["app_list"]]
    assert apps[:2] == ["accounts", "servers"] and len(apps) > 2


@pytest.mark.parametrize("model", LISTS)
def test_each_list_opens_and_can_be_searched(client: Client, key: SSHKey, bob: User, model: str) -> None:
    url = reverse(f"admin:accounts_{model}_changelist")
    assert client.get(url).status_code == 200
    assert client.get(url, {"q": "22000"}).status_code == 200
    assert "alice" in client.get(url, {"q": "alice"}).content.decode()


@pytest.mark.parametrize("model", LISTS)
def test_a_list_costs_the_same_for_many_rows(client: Client, alice: User, model: str) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            client.get(reverse(f"admin:accounts_{model}_changelist"))
        return len(captured)

    keys.add_keys(actor="alice", user=alice, pasted=line())
    few = queries()
    for number in range(1, 5):
        user = User.objects.create_user(f"p{number}", directory_id=str(number))
        people.signed_in(user=user)
        keys.add_keys(actor=user.username, user=user, pasted=line(number))
    assert queries() == few


@pytest.mark.parametrize("model", LISTS)
def test_generated_rows_are_read_only(client: Client, key: SSHKey, model: str) -> None:
    rows: dict[str, Model] = {"user": key.user, "sshkey": key, "port": key.user.port, "subuidrange": key.user.subuids}
    row: Model = rows.get(model) or AuditEvent.objects.latest("pk")
    assert client.get(reverse(f"admin:accounts_{model}_add")).status_code == 403
    assert client.post(reverse(f"admin:accounts_{model}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    change = reverse(f"admin:accounts_{model}_change", args=[row.pk])
    assert client.get(change).status_code == 200
    assert client.post(change, {"username": "evil"}).status_code == 403


def test_removing_a_key_asks_for_confirmation(client: Client, key: SSHKey) -> None:
    page = act(client, "sshkey", "revoke", key)
    assert "Remove these keys?" in page and key.fingerprint in page
    key.refresh_from_db()
    assert key.is_active


def test_removing_a_key_goes_through_the_service(client: Client, key: SSHKey) -> None:
    assert "1 key removed" in act(client, "sshkey", "revoke", key, confirmed="yes")
    key.refresh_from_db()
    assert key.ranges.get().until == keys.current_revision() == 2
    assert AuditEvent.objects.get(verb="key.removed").actor == "warden"


def test_locking_out_goes_through_the_service(client: Client, alice: User) -> None:
    keys.add_keys(actor="alice", user=alice, pasted=line())
    assert "Lock these people out?" in act(client, "user", "lock_out", alice)
    assert list(keys.current_state().users) == ["alice"]
    assert "1 person locked out." in act(client, "user", "lock_out", alice, confirmed="yes")
    assert keys.current_state().users == {}
    assert AuditEvent.objects.get(verb="person.locked_out").actor == "warden"
    assert "1 person unlocked." in act(client, "user", "unlock", alice)
    assert list(keys.current_state().users) == ["alice"]


def test_nobody_can_lock_themselves_out(client: Client, staff: User) -> None:
    assert "cannot lock yourself out" in act(client, "user", "lock_out", staff)
    staff.refresh_from_db()
    assert staff.is_active


def test_many_people_cannot_be_deleted_at_once(client: Client, alice: User) -> None:
    act(client, "user", "delete_selected", alice, post="yes")
    assert User.objects.filter(pk=alice.pk).exists()


def test_only_the_locked_out_can_be_deleted_and_leave_tombstones(client: Client, key: SSHKey) -> None:
    alice, port = key.user, key.user.port.number
    url = reverse("admin:accounts_user_delete", args=[alice.pk])
    assert client.post(url, {"post": "yes"}).status_code == 403
    people.set_active(actor="warden", user=alice, active=False)
    assert "Are you sure" in client.get(url).content.decode()
    assert client.post(url, {"post": "yes"}).status_code == 302
    assert not User.objects.filter(username="alice").exists()
    assert Port.objects.get(number=port).username == "alice"
    assert AuditEvent.objects.get(verb="person.deleted").actor == "warden"


def test_k10_staff_can_see_the_owner_of_a_pasted_key(client: Client, key: SSHKey, bob: User) -> None:
    with pytest.raises(ValueError, match="in use"):
        keys.add_keys(actor="bob", user=bob, pasted=line())
    page = unescape(
        client.get(reverse("admin:accounts_auditevent_changelist"), {"verb": "key.refused"}).content.decode()
    )
    assert '"owner": "alice"' in page


def test_people_who_are_not_staff_see_nothing(alice: User) -> None:
    stranger = Client()
    stranger.force_login(alice, backend="accounts.backends.DirectoryBackend")
    for path in ["/admin/", *(reverse(f"admin:accounts_{model}_changelist") for model in LISTS)]:
        assert stranger.get(path).status_code == 302
