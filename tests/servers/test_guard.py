"""A push that removes many keys waits for confirmation: over real SSH to the real labhost."""

from html import unescape

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from accounts.models import AuditEvent, KeyRange, SSHKey, User
from accounts.services import keys, numbers, people
from accounts.services.keys import add_keys, revoke_keys
from servers import protocol
from servers.models import HeldBackPush, KeySnapshot, Push, Server, ServerState
from servers.protocol import Message
from servers.services.push import guard, runner
from tests.accounts.keys import line
from tests.servers.conftest import make_server, signed_in
from tests.servers.farm import ADDRESSES, Farm

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]
LIST = "/admin/servers/heldbackpush/"
CROWD = 10


@pytest.fixture
def crowd(transactional_db: None) -> list[User]:
    """Ten people with a key each."""
    found = []
    for number in range(CROWD):
        user = User.objects.create_user(f"user{number}", directory_id=f"id-{number}")
        numbers.assign(user)
        add_keys(actor="test", user=user, pasted=line(number))
        found.append(user)
    return found


@pytest.fixture
def gpu17(farm: Farm, crowd: list[User]) -> Server:
    """A server with the keys of all."""
    server = make_server(farm)
    assert push_due()[0].state == "succeeded"
    server.refresh_from_db()
    return server


@pytest.fixture
def boss(staff: User) -> Client:
    return signed_in(staff)


def push_due() -> list[Push]:
    ServerState.objects.update(next_attempt=timezone.now())
    return runner.push_due(actor="test")


def remove(*users: User) -> None:
    revoke_keys(actor="test", keys=SSHKey.objects.filter(user__in=users))


def lines(farm: Farm, number: int = 0) -> int:
    return len(farm.register_file(ADDRESSES[number]).splitlines())


def confirm(boss: Client, *held_back_pushes: HeldBackPush, mark: str = "") -> str:
    data: dict[str, object] = {"action": "confirm", "_selected_action": [row.pk for row in held_back_pushes]}
    data |= {"confirmed": "yes"} | {f"mark-{row.pk}": mark or row.mark for row in held_back_pushes}
    return unescape(boss.post(LIST, data, follow=True).content.decode())


def test_many_keys_are_removed_only_after_confirmation(
    farm: Farm, gpu17: Server, crowd: list[User], boss: Client
) -> None:
    remove(*crowd[:5])
    (push,) = push_due()
    gpu17.refresh_from_db()
    assert push.state == "failed" and lines(farm) == CROWD and gpu17.state.applied_revision == CROWD
    assert gpu17.state.last_error == Message("held_back", {"keys": 5, "of": 10, "people": 5})
    row = HeldBackPush.objects.get()
    assert (row.state, row.people_count, row.keys_count, row.keys_total, row.percent) == ("waiting", 5, 5, 10, 50)
    assert set(row.removed_keys) == {user.username for user in crowd[:5]}
    page = unescape(boss.get(f"{LIST}{row.pk}/change/").content.decode())
    assert "user4" in page and "user5" not in page and "Remove these keys…" in page
    asked = unescape(boss.post(LIST, {"action": "confirm", "_selected_action": [row.pk]}).content.decode())
    assert "Confirm these pushes?" in asked and row.mark in asked
    assert push_due()[0].state == "failed", "opening the page is no confirmation"
    assert "gpu17: push confirmed." in confirm(boss, row)
    (push,) = push_due()
    row.refresh_from_db()
    assert push.state == "succeeded" and lines(farm) == 5
    assert (row.state, row.decided_by) == ("applied", "warden") and row.decided_at
    event = AuditEvent.objects.get(verb="push.confirmed")
    assert event.actor == "warden" and event.detail["keys"] == 5 and "user0" in event.detail["people"]


def test_people_and_staff_see_why_a_push_is_held_back(gpu17: Server, crowd: list[User], boss: Client) -> None:
    remove(*crowd[:5])
    add_keys(actor="test", user=crowd[9], pasted=line(20))
    push_due()
    reason = "waiting for confirmation"
    for client, path in ((signed_in(crowd[9]), "/me/"), (signed_in(crowd[9]), "/log/push-keys"), (boss, "/admin/")):
        page = unescape(client.get(path).content.decode())
        assert reason in page.lower() and "user0" not in page, path
    assert "held back" in boss.get("/admin/servers/server/").content.decode()


def test_few_keys_or_few_people_are_removed_at_once(farm: Farm, gpu17: Server, crowd: list[User]) -> None:
    remove(*crowd[:4])
    assert push_due()[0].state == "succeeded" and lines(farm) == 6, "four people are too few to ask"


def test_a_small_share_of_many_people_is_removed_at_once(
    farm: Farm, gpu17: Server, crowd: list[User], settings: Settings
) -> None:
    settings.PUSH_MAX_REMOVAL_PERCENT = 50
    remove(*crowd[:5])
    assert push_due()[0].state == "succeeded" and lines(farm) == 5 and not HeldBackPush.objects.exists()


def test_locked_out_people_and_replaced_keys_count(farm: Farm, gpu17: Server, crowd: list[User]) -> None:
    for user in crowd[:3]:
        people.set_active(actor="directory", user=user, active=False)
    remove(*crowd[3:5])
    for number, user in enumerate(crowd[3:5]):
        add_keys(actor="test", user=user, pasted=line(20 + number))
    assert push_due()[0].state == "failed" and HeldBackPush.objects.get().keys_count == 5


def test_rows_deleted_directly_in_the_database_count(farm: Farm, gpu17: Server, crowd: list[User]) -> None:
    SSHKey.objects.filter(user__in=crowd[:6]).delete()  # as after a manual repair, or a table that was partly restored
    add_keys(actor="test", user=crowd[9], pasted=line(20))
    assert push_due()[0].state == "failed" and lines(farm) == CROWD and HeldBackPush.objects.get().keys_count == 6


def test_without_a_key_snapshot_the_key_history_decides(farm: Farm, gpu17: Server, crowd: list[User]) -> None:
    KeySnapshot.objects.all().delete()
    guard._difference.cache_clear()
    guard._load.cache_clear()
    remove(*crowd[:5])
    assert push_due()[0].state == "failed" and lines(farm) == CROWD


def test_restored_keys_supersede_the_held_back_push(farm: Farm, gpu17: Server, crowd: list[User], boss: Client) -> None:
    for user in crowd[:5]:
        people.set_active(actor="directory", user=user, active=False)
    assert push_due()[0].state == "failed"
    for user in crowd[:5]:
        people.set_active(actor="warden", user=user, active=True)
    assert push_due()[0].state == "succeeded" and lines(farm) == CROWD
    assert HeldBackPush.objects.get().state == "superseded"
    page = boss.post(LIST, {"action": "confirm", "_selected_action": [HeldBackPush.objects.get().pk]}).content.decode()
    assert "None of the selected pushes is waiting" in page


def test_a_confirmation_covers_only_the_keys_that_were_shown(
    farm: Farm, gpu17: Server, crowd: list[User], boss: Client
) -> None:
    remove(*crowd[:5])
    push_due()
    seen = HeldBackPush.objects.get().mark
    remove(crowd[5])
    push_due()
    row = HeldBackPush.objects.get()
    assert row.keys_count == 6 and "the keys to remove have changed" in confirm(boss, row, mark=seen)
    assert push_due()[0].state == "failed" and lines(farm) == CROWD
    confirm(boss, row)
    add_keys(actor="test", user=crowd[9], pasted="\n".join(line(number) for number in range(20, 24)))
    assert push_due()[0].state == "succeeded" and lines(farm) == 8
    for user in crowd[6:]:
        keys.revoke_keys(actor="test", keys=SSHKey.objects.filter(user=user)[:1])
    assert push_due()[0].state == "succeeded", "four are not many"
    remove(crowd[9])
    crowd[0].refresh_from_db()
    add_keys(actor="test", user=crowd[0], pasted=line(30))
    assert push_due()[0].state == "succeeded"
    remove(crowd[0])
    assert push_due()[0].state == "failed", "the fifth since the confirmation"


def test_an_old_confirmation_does_not_cover_a_later_removal(
    farm: Farm, gpu17: Server, crowd: list[User], boss: Client
) -> None:
    for user in crowd[:5]:
        people.set_active(actor="directory", user=user, active=False)
    push_due()
    confirm(boss, HeldBackPush.objects.get())
    for user in crowd[:5]:
        people.set_active(actor="warden", user=user, active=True)
    assert push_due()[0].state == "succeeded"
    for user in crowd[:5]:
        people.set_active(actor="directory", user=user, active=False)
    assert push_due()[0].state == "failed" and lines(farm) == CROWD


def test_z8_a_lock_out_in_slices_counts_as_one(farm: Farm, gpu17: Server, crowd: list[User]) -> None:
    for user in crowd[:3]:
        people.set_active(actor="directory", user=user, active=False)
    assert push_due()[0].state == "succeeded" and lines(farm) == 7
    for user in crowd[3:6]:
        people.set_active(actor="directory", user=user, active=False)
    assert push_due()[0].state == "failed" and lines(farm) == 7
    row = HeldBackPush.objects.get()
    assert set(row.removed_keys) == {user.username for user in crowd[3:6]}, "only those that are still there"
    assert (row.people_count, row.keys_count, row.keys_total) == (3, 3, 7)


def test_z8_slices_of_one_person_count_too_and_age(farm: Farm, gpu17: Server, crowd: list[User]) -> None:
    states = []
    for user in crowd[:6]:
        remove(user)
        states.append(push_due()[0].state)
    assert states == ["succeeded"] * 4 + ["failed"] * 2 and lines(farm) == 6
    KeyRange.objects.update(ended_at=timezone.now() - guard.WINDOW)
    KeyRange.objects.filter(until__isnull=True).update(ended_at=None)
    assert push_due()[0].state == "succeeded" and lines(farm) == 4


def test_z8_a_lock_out_that_staff_confirmed_in_the_admin_is_not_asked_for_again(
    farm: Farm, gpu17: Server, crowd: list[User], boss: Client
) -> None:
    chosen = {"action": "lock_out", "_selected_action": [user.pk for user in crowd[:6]]}
    asked = unescape(boss.post("/admin/accounts/user/", chosen).content.decode())
    assert "Lock these people out?" in asked and "user5" in asked and "user6" not in asked
    assert User.objects.filter(is_active=False).count() == 0, "opening the page is no confirmation"
    answer = boss.post("/admin/accounts/user/", chosen | {"confirmed": "yes"}, follow=True).content.decode()
    assert "6 people locked out." in answer
    assert push_due()[0].state == "succeeded" and lines(farm) == 4 and not HeldBackPush.objects.exists()


def test_z8_people_who_remove_their_own_keys_need_no_confirmation(farm: Farm, gpu17: Server, crowd: list[User]) -> None:
    for user in crowd[:6]:
        keys.revoke_key(actor=user.username, key=user.ssh_keys.get())
    assert push_due()[0].state == "succeeded" and lines(farm) == 4


def test_z8_a_removal_confirmed_for_one_server_is_confirmed_for_all(
    farm: Farm, gpu17: Server, crowd: list[User], boss: Client
) -> None:
    other = make_server(farm, 1)
    push_due()
    remove(*crowd[:5])
    assert {push.server: push.state for push in push_due()} == {gpu17: "failed", other: "failed"}
    confirm(boss, HeldBackPush.objects.get(server=gpu17))
    assert not runner.push_due(actor="test") or lines(farm, 1) == 5, "due at once, without another question"
    assert lines(farm) == lines(farm, 1) == 5
    assert set(HeldBackPush.objects.values_list("state", flat=True)) == {"applied", "superseded"}


def test_each_server_is_compared_with_its_own_keys(farm: Farm, gpu17: Server, crowd: list[User], boss: Client) -> None:
    fresh = make_server(farm, 1)
    remove(*crowd[:5])
    done = {push.server.name: push.state for push in push_due()}
    assert done == {"gpu17": "failed", fresh.name: "succeeded"} and lines(farm, 1) == 5


def test_only_staff_may_confirm(gpu17: Server, crowd: list[User]) -> None:
    remove(*crowd[:5])
    push_due()
    row = HeldBackPush.objects.get()
    answer = signed_in(crowd[9]).post(
        LIST, {"action": "confirm", "_selected_action": [row.pk], "confirmed": "yes", f"mark-{row.pk}": row.mark}
    )
    row.refresh_from_db()
    assert answer.status_code == 302 and row.state == "waiting"


def test_unused_key_snapshots_are_deleted(gpu17: Server, crowd: list[User]) -> None:
    for number in range(20, 28):
        state = keys.current_state()
        guard.save_snapshot(100 + number, f"{number}" * 32, protocol.plain(state.users))
    guard.prune()
    assert KeySnapshot.objects.count() == 1 + guard.MIN_SNAPSHOTS
    assert KeySnapshot.objects.filter(digest=gpu17.state.applied_digest).exists(), "the key snapshot of a server stays"
