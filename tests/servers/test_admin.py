import re
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import AuditEvent, User
from accounts.services.keys import add_keys
from servers.models import Container, ContainerJob, HeldBackPush, Placement, Push, Server, ServerState
from servers.protocol import Answer, Message, UserResult
from servers.services.fleet import deployment
from servers.services.push import results
from servers.ssh import host_keys
from tests.accounts.keys import fingerprint, line
from tests.servers.conftest import OTHER, PINNED, make_server, signed_in
from tests.servers.farm import Farm
from tests.servers.pushes import GOOD, fail, push

pytestmark = pytest.mark.django_db
LIST = "/admin/servers/server/"


@pytest.fixture
def boss(staff: User) -> Client:
    return signed_in(staff)


def act(client: Client, action: str, *servers: Server, **fields: Any) -> str:
    """The page after selecting these servers and an action."""
    data = {"action": action, "_selected_action": [server.pk for server in servers], **fields}
    return unescape(client.post(LIST, data, follow=True).content.decode())


@pytest.mark.parametrize("page", ["server", "container", "push", "containerjob", "placement", "heldbackpush"])
def test_people_who_are_not_staff_see_nothing(alice: User, page: str) -> None:
    answer = signed_in(alice).get(f"/admin/servers/{page}/", follow=True)
    assert answer.status_code == 403


def test_the_list_shows_servers_that_are_behind_and_why(boss: Client, server: Server, alice: User) -> None:
    add_keys(actor="alice", user=alice, pasted=line())
    Container.objects.create(server=server, user=alice)
    ServerState.objects.update(behind_since=timezone.now(), last_error=Message("timeout"))
    page = unescape(boss.get(LIST).content.decode())
    for wanted in ("0 of 1", ">behind<", "did not finish in time", "revision: 1"):
        assert wanted in page
    assert "gpu17" in boss.get(f"{LIST}?keys=behind").content.decode()
    assert "0 servers" in boss.get(f"{LIST}?keys=current").content.decode()


def test_the_list_costs_the_same_for_many_servers(boss: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(10):
        Server.objects.create(name=f"gpu{number}", address=f"172.16.2.{number}", host_key=PINNED)
    with django_assert_max_num_queries(40):
        boss.get(LIST)
    few = _queries(boss)
    for number in range(10, 30):
        Server.objects.create(name=f"gpu{number}", address=f"172.16.2.{number}", host_key=PINNED)
    assert _queries(boss) == few


def _queries(client: Client) -> int:
    with CaptureQueriesContext(connection) as seen:
        client.get(LIST)
    return len(seen)


@pytest.mark.parametrize("page", ["container", "push", "containerjob", "placement", "heldbackpush"])
def test_generated_rows_are_read_only(boss: Client, server: Server, alice: User, page: str) -> None:
    now = timezone.now()
    rows = {
        "container": Container.objects.create(server=server, user=alice),
        "push": Push.objects.create(server=server, state="queued"),
        "containerjob": ContainerJob.objects.create(server=server, user=alice, log="[1/11] fetch"),
        "placement": Placement.objects.create(
            server=server, user=alice, host="good", container="absent", host_since=now, container_since=now
        ),
        "heldbackpush": HeldBackPush.objects.create(
            server=server,
            base_revision=1,
            revision=2,
            removed_keys={"bob": ["ab"]},
            people_count=1,
            keys_count=1,
            keys_total=2,
        ),
    }
    path = f"/admin/servers/{page}/"
    assert boss.get(path).status_code == 200
    assert boss.get(f"{path}add/").status_code == 403
    shown = boss.get(f"{path}{rows[page].pk}/change/")
    assert shown.status_code == 200 and b'name="_save"' not in shown.content
    assert boss.post(f"{path}{rows[page].pk}/delete/", {"post": "yes"}).status_code == 403


def test_push_now_queues_and_does_not_wait(boss: Client, server: Server) -> None:
    off = Server.objects.create(name="gpu18", address="172.16.2.18", enabled=False)
    page = act(boss, "push_now", server, off)
    assert "1 push queued." in page and "out of service were skipped" in page
    assert Push.objects.get().trigger == "warden"


def test_the_connection_test_shows_the_answer(boss: Client, farm: Farm) -> None:
    assert "answers as gpu17" in act(boss, "test_connection", make_server(farm))


def test_the_connection_test_shows_the_error(boss: Client, farm: Farm) -> None:
    page = act(boss, "test_connection", make_server(farm, address="127.0.0.99"))
    assert "Connection refused" in page


def test_y5_a_new_host_key_is_accepted_after_both_fingerprints_were_shown(boss: Client, server: Server) -> None:
    Server.objects.update(offered_host_key=OTHER)
    pinned, offered = host_keys.fingerprint(PINNED), host_keys.fingerprint(OTHER)
    page = act(boss, "accept_host_key", server)
    assert pinned in page and offered in page
    server.refresh_from_db()
    assert server.host_key == PINNED, "not before the second page"
    act(boss, "accept_host_key", server, confirmed="yes", **{f"fingerprint-{server.pk}": offered})
    server.refresh_from_db()
    assert (server.host_key, server.offered_host_key) == (OTHER, "")


def test_y5_a_host_key_that_changed_in_between_is_not_accepted(boss: Client, server: Server) -> None:
    Server.objects.update(offered_host_key=OTHER)
    shown = host_keys.fingerprint(PINNED)
    page = act(boss, "accept_host_key", server, confirmed="yes", **{f"fingerprint-{server.pk}": shown})
    server.refresh_from_db()
    assert "another host key now" in page and server.host_key == PINNED


def test_register_asks_for_the_person_then_queues_a_job(boss: Client, server: Server, alice: User) -> None:
    page = act(boss, "register_container", server)
    assert "Register a person" in page and ContainerJob.objects.count() == 0
    assert "no active person" in act(boss, "register_container", server, confirmed="yes", name="nobody")
    page = act(boss, "register_container", server, confirmed="yes", name="Alice")
    order = ContainerJob.objects.get()
    assert (order.user, order.server, order.requested_by, order.state) == (alice, server, "warden", "queued")
    assert "alice on gpu17: registration queued" in page


def test_register_shows_the_reason_of_a_refusal(boss: Client, server: Server, staff: User) -> None:
    assert "first sign-in" in act(boss, "register_container", server, confirmed="yes", name="warden")


def test_a_server_is_taken_out_of_service_and_back(boss: Client, server: Server) -> None:
    assert "1 server taken out of service." in act(boss, "disable", server)
    assert "1 server put into service." in act(boss, "enable", server)
    assert AuditEvent.objects.filter(actor="warden", verb__in=["server.disabled", "server.enabled"]).count() == 2


def test_a_server_is_added_without_a_key_and_shows_the_next_step(boss: Client) -> None:
    fields = {"name": "gpu18", "address": "172.16.2.18", "ssh_port": "22"}
    page = unescape(boss.post(f"{LIST}add/", fields, follow=True).content.decode())
    assert "test the connection" in page and "no host key" in page
    assert AuditEvent.objects.get(verb="server.added").actor == "warden"


def test_a_used_address_is_reported_at_the_field(boss: Client, server: Server) -> None:
    fields = {"name": "gpu18", "address": server.address, "ssh_port": "22"}
    page = unescape(boss.post(f"{LIST}add/", fields).content.decode())
    assert "Another server has this address" in page and Server.objects.count() == 1


def test_only_the_address_can_be_edited(boss: Client, server: Server) -> None:
    fields = {"name": "evil", "address": "172.16.2.99", "ssh_port": "2222", "host_key": OTHER, "applied_revision": "99"}
    boss.post(f"{LIST}{server.pk}/change/", fields)
    server.refresh_from_db()
    assert (server.name, server.address, server.ssh_port) == ("gpu17", "172.16.2.99", 2222)
    assert server.host_key == PINNED and server.state.applied_revision == 0
    assert AuditEvent.objects.get(verb="server.moved").detail["before"] == "172.16.2.17 port 22"


def test_removing_a_server_is_audited(boss: Client, server: Server) -> None:
    boss.post(f"{LIST}{server.pk}/delete/", {"post": "yes"})
    assert not Server.objects.exists() and AuditEvent.objects.get(verb="server.removed").actor == "warden"


def test_x1_no_page_shows_the_digest_of_a_token(boss: Client, server: Server) -> None:
    Server.objects.update(token_digest="cafe" * 16)
    assert b"cafecafe" not in boss.get(f"{LIST}{server.pk}/change/").content


def test_the_first_page_shows_servers_that_are_behind(boss: Client, server: Server) -> None:
    ServerState.objects.update(behind_since=timezone.now(), last_error=Message("timeout"))
    page = unescape(boss.get("/admin/").content.decode())
    assert "The server did not finish in time." in page and "no heartbeat" in page


def test_the_list_of_servers_counts_pending_changes(boss: Client, server: Server, alice: User, bob: User) -> None:
    add_keys(actor="alice", user=alice, pasted=line(1))
    push(server, {"alice": GOOD})
    assert "all live" in boss.get(LIST).content.decode()
    add_keys(actor="bob", user=bob, pasted=line(2))
    assert "1 change pending" in boss.get(LIST).content.decode()
    push(server, {"alice": UserResult("failed", "absent", Message("home_missing"))})
    assert "failed for 1 person" in boss.get(LIST).content.decode()


def test_the_page_of_a_server_lists_its_pending_keys(boss: Client, server: Server, alice: User) -> None:
    push(server)
    add_keys(actor="alice", user=alice, pasted=line(1))
    fail(server)
    page = unescape(boss.get(f"{LIST}{server.pk}/change/").content.decode())
    assert fingerprint(line(1)) in page and "(no route to host), since" in page
    push(server, {"alice": GOOD})
    page = unescape(boss.get(f"{LIST}{server.pk}/change/").content.decode())
    assert fingerprint(line(1)) not in page and "No pending changes" in page


def test_a_key_shows_its_state_in_the_list_and_on_its_page(boss: Client, server: Server, alice: User) -> None:
    (key,) = add_keys(actor="alice", user=alice, pasted=line(1)).added
    path = "/admin/accounts/sshkey/"
    assert "live on 0 of 1 server" in boss.get(path).content.decode()
    push(server, {"alice": GOOD})
    assert "live on 1 of 1 server" in boss.get(path).content.decode()
    page = boss.get(f"{path}{key.pk}/change/").content.decode()
    assert "live on 1 of 1 server" in page and "host account" in page and "since" in page
    assert boss.get(f"{path}nothing/change/").status_code == 302  # a redirect to the admin's first page, with a message


def test_the_list_of_keys_costs_the_same_for_many(boss: Client, server: Server, alice: User) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            boss.get("/admin/accounts/sshkey/")
        return len(seen)

    add_keys(actor="alice", user=alice, pasted=line(0))
    few = queries()
    for number in range(1, 9):
        user = User.objects.create_user(f"u{number}", directory_id=f"d{number}")
        add_keys(actor="test", user=user, pasted=line(number))
    assert queries() == few


def test_removing_a_container_asks_for_confirmation_and_queues_one_job(
    boss: Client, server: Server, alice: User
) -> None:
    row = Container.objects.create(server=server, user=alice)
    path, data = "/admin/servers/container/", {"action": "remove_container", "_selected_action": [row.pk]}
    asked = boss.post(path, data).content.decode()
    assert "alice on gpu17" in asked and 'name="purge"' in asked
    assert ContainerJob.objects.count() == 0
    page = unescape(boss.post(path, data | {"confirmed": "yes"}, follow=True).content.decode())
    assert "alice on gpu17: removal queued" in page
    order = ContainerJob.objects.get()
    assert (order.kind, order.purge, order.requested_by) == ("remove", False, "warden")
    again = boss.post(path, data | {"confirmed": "yes", "purge": "yes"}, follow=True).content.decode()
    assert "is open" in again and ContainerJob.objects.count() == 1


def test_outdated_host_programs_are_named_in_the_list_and_on_the_page(boss: Client, server: Server) -> None:
    def pages() -> list[str]:
        return [boss.get(page).content.decode() for page in (LIST, f"{LIST}{server.pk}/change/")]

    assert all(">unknown<" in page for page in pages())
    results.record_status(server, Answer(ok=True, labhost="1.0.0", build=deployment.build()))
    assert all(">no token<" in page for page in pages())
    Server.objects.update(token_digest="cafe" * 16)
    assert all(">current<" in page and ">outdated<" not in page for page in pages())
    results.record_status(server, Answer(ok=True, labhost="1.0.0", build="0" * 12))
    assert all(">outdated<" in page for page in pages())


def test_z1_a_disk_that_is_almost_full_is_named_in_the_list_and_on_the_page(boss: Client, server: Server) -> None:
    disk = {"size": 100 << 30, "free": 50 << 30, "inodes": 1000, "free_inodes": 500}

    def shown(**changes: int) -> str:
        ServerState.objects.update(disks={"homes": disk | changes, "state": disk})
        pages = ("/admin/servers/server/", f"/admin/servers/server/{server.pk}/change/")
        return unescape("".join(boss.get(page).content.decode() for page in pages))

    assert "enough space" in shown() and "people's files: 50.0 GB of 100.0 GB, 500 of 1000 inodes free" in shown()
    assert "people's files: 1.0 GB free<" in shown(free=1 << 30)
    assert "people's files: 7 inodes free<" in shown(free_inodes=7)
    assert re.search(r"Disks almost full.{1,200}>1<", boss.get("/admin/").content.decode(), re.DOTALL)


def test_the_page_of_a_server_shows_its_last_error_as_a_text(boss: Client, server: Server) -> None:
    ServerState.objects.update(last_error=Message("timeout"))
    page = boss.get(f"{LIST}{server.pk}/change/").content.decode()
    assert "The server did not finish in time." in page and "Message(" not in page


@pytest.mark.parametrize(("count", "text"), [(1, "1 key of 1 person on gpu17"), (2, "2 keys of 2 people on gpu17")])
def test_the_name_of_a_held_back_push_counts_properly(server: Server, count: int, text: str) -> None:
    push = HeldBackPush(server=server, keys_count=count, people_count=count)
    assert str(push) == f"{text} (waiting)"
