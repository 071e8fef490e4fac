"""No push takes many keys away before a person has looked: over real SSH to the real labhost."""

from html import unescape

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from accounts.models import AuditEvent, SSHKey, User
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
    """A server that holds the keys of all."""
    server = make_server(farm)
    assert converge()[0].state == "succeeded"
    server.refresh_from_db()
    return server


@pytest.fixture
def boss(staff: User) -> Client:
    return signed_in(staff)


def converge() -> list[Push]:
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


def test_many_keys_go_only_after_a_person_has_confirmed_it(
    farm: Farm, gpu17: Server, crowd: list[User], boss: Client
) -> None:
    remove(*crowd[:5])
    (push,) = converge()
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
    assert converge()[0].state == "failed", "a look at the page is no confirmation"
    assert "gpu17: push confirmed." in confirm(boss, row)
    (push,) = converge()
    row.refresh_from_db()
    assert push.state == "succeeded" and lines(farm) == 5
    assert (row.state, row.decided_by) == ("applied", "warden") and row.decided_at
    event = AuditEvent.objects.get(verb="push.confirmed")
    assert event.actor == "warden" and event.detail["keys"] == 5 and "user0" in event.detail["people"]


def test_the_reason_is_shown_to_people_and_staff(gpu17: Server, crowd: list[User], boss: Client) -> None:
    remove(*crowd[:5])
    add_keys(actor="test", user=crowd[9], pasted=line(20))
    converge()
    words = "waiting for confirmation"
    for client, path in ((signed_in(crowd[9]), "/me/"), (signed_in(crowd[9]), "/log/push-keys"), (boss, "/admin/")):
        page = unescape(client.get(path).content.decode())
        assert words in page.lower() and "user0" not in page, path
    assert "held back" in boss.get("/admin/servers/server/").content.decode()


def test_few_keys_or_few_people_go_at_once(farm: Farm, gpu17: Server, crowd: list[User]) -> None:
    remove(*crowd[:4])
    assert converge()[0].state == "succeeded" and lines(farm) == 6, "four people are too few to ask"


def test_a_small_share_of_many_people_goes_at_once(
    farm: Farm, gpu17: Server, crowd: list[User], settings: Settings
) -> None:
    settings.PUSH_MAX_REMOVAL_PERCENT = 50
    remove(*crowd[:5])
    assert converge()[0].state == "succeeded" and lines(farm) == 5 and not HeldBackPush.objects.exists()


def test_people_who_are_locked_out_count_and_so_do_keys_that_are_exchanged(
    farm: Farm, gpu17: Server, crowd: list[User]
) -> None:
    for user in crowd[:3]:
        people.set_active(actor="directory", user=user, active=False)
    remove(*crowd[3:5])
    for number, user in enumerate(crowd[3:5]):
        add_keys(actor="test", user=user, pasted=line(20 + number))
    assert converge()[0].state == "failed" and HeldBackPush.objects.get().keys_count == 5


def test_rows_that_vanished_without_a_word_are_missed_too(farm: Farm, gpu17: Server, crowd: list[User]) -> None:
    SSHKey.objects.filter(user__in=crowd[:6]).delete()  # as a repair by hand, or half a restored table
    add_keys(actor="test", user=crowd[9], pasted=line(20))
    assert converge()[0].state == "failed" and lines(farm) == CROWD and HeldBackPush.objects.get().keys_count == 6


def test_without_a_record_of_what_it_holds_the_history_of_the_keys_decides(
    farm: Farm, gpu17: Server, crowd: list[User]
) -> None:
    KeySnapshot.objects.all().delete()
    guard._difference.cache_clear()
    guard._load.cache_clear()
    remove(*crowd[:5])
    assert converge()[0].state == "failed" and lines(farm) == CROWD


def test_keys_that_come_back_end_the_wait(farm: Farm, gpu17: Server, crowd: list[User], boss: Client) -> None:
    for user in crowd[:5]:
        people.set_active(actor="directory", user=user, active=False)
    assert converge()[0].state == "failed"
    for user in crowd[:5]:
        people.set_active(actor="warden", user=user, active=True)
    assert converge()[0].state == "succeeded" and lines(farm) == CROWD
    assert HeldBackPush.objects.get().state == "superseded"
    assert (
        "None of the selected pushes is waiting"
        in boss.post(LIST, {"action": "confirm", "_selected_action": [HeldBackPush.objects.get().pk]}).content.decode()
    )


def test_a_confirmation_is_for_what_was_shown_and_nothing_more(
    farm: Farm, gpu17: Server, crowd: list[User], boss: Client
) -> None:
    remove(*crowd[:5])
    converge()
    seen = HeldBackPush.objects.get().mark
    remove(crowd[5])
    converge()
    row = HeldBackPush.objects.get()
    assert row.keys_count == 6 and "the keys to remove have changed" in confirm(boss, row, mark=seen)
    assert converge()[0].state == "failed" and lines(farm) == CROWD
    confirm(boss, row)
    remove(crowd[6])
    assert converge()[0].state == "failed" and lines(farm) == CROWD, "one more than was agreed to"


def test_an_old_confirmation_does_not_serve_for_a_later_removal(
    farm: Farm, gpu17: Server, crowd: list[User], boss: Client
) -> None:
    for user in crowd[:5]:
        people.set_active(actor="directory", user=user, active=False)
    converge()
    confirm(boss, HeldBackPush.objects.get())
    for user in crowd[:5]:
        people.set_active(actor="warden", user=user, active=True)
    assert converge()[0].state == "succeeded"
    for user in crowd[:5]:
        people.set_active(actor="directory", user=user, active=False)
    assert converge()[0].state == "failed" and lines(farm) == CROWD


def test_servers_are_judged_by_what_each_holds(farm: Farm, gpu17: Server, crowd: list[User], boss: Client) -> None:
    fresh = make_server(farm, 1)
    remove(*crowd[:5])
    done = {push.server.name: push.state for push in converge()}
    assert done == {"gpu17": "failed", fresh.name: "succeeded"} and lines(farm, 1) == 5


def test_only_staff_may_confirm(gpu17: Server, crowd: list[User]) -> None:
    remove(*crowd[:5])
    converge()
    row = HeldBackPush.objects.get()
    answer = signed_in(crowd[9]).post(
        LIST, {"action": "confirm", "_selected_action": [row.pk], "confirmed": "yes", f"mark-{row.pk}": row.mark}
    )
    row.refresh_from_db()
    assert answer.status_code == 302 and row.state == "waiting"


def test_sets_that_nobody_holds_are_forgotten(gpu17: Server, crowd: list[User]) -> None:
    for number in range(20, 28):
        state = keys.current_state()
        guard.save_snapshot(100 + number, f"{number}" * 32, protocol.plain(state.users))
    guard.prune()
    assert KeySnapshot.objects.count() == 1 + guard.MIN_SNAPSHOTS
    assert KeySnapshot.objects.filter(digest=gpu17.state.applied_digest).exists(), "what a server holds is kept"
