"""Limits of containers: which row decides, what the host programs get, and the admin's page."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.test import Client
from pytest_django.fixtures import Settings

from accounts.models import AuditEvent, User
from servers.models import Limits, Server
from servers.services.containers import limits
from tests.servers.conftest import signed_in

pytestmark = pytest.mark.django_db
FREE = "memory=max\ncpus=max\nprocesses=max\ngpus=all\ndisk=max\n"


def limits_text(user: User, server: Server) -> str:
    return limits.text(limits.of(user, server))


def test_without_rows_nothing_is_limited(alice: User, server: Server) -> None:
    assert limits_text(alice, server) == FREE


def test_the_most_specific_row_decides_each_value(alice: User, bob: User, server: Server) -> None:
    other = Server.objects.create(name="gpu18", address="172.16.2.18")
    Limits.objects.create(memory=32, cpus=4, processes=1000, gpus="all", disk=100)
    Limits.objects.create(server=server, memory=64, gpus="0,1")
    Limits.objects.create(user=alice, cpus=Decimal("8.50"), gpus="none")
    Limits.objects.create(user=alice, server=server, processes=4096)
    gb = 1 << 30
    lines = [f"memory={64 * gb}", "cpus=8.50", "processes=4096", "gpus=none", f"disk={100 * gb}"]
    assert limits_text(alice, server).splitlines() == lines
    assert limits_text(bob, server).splitlines() == [
        f"memory={64 * gb}",
        "cpus=4.00",
        "processes=1000",
        "gpus=0,1",
        lines[4],
    ]
    assert limits_text(alice, other).splitlines()[:3] == [f"memory={32 * gb}", "cpus=8.50", "processes=1000"]


def test_the_host_program_can_parse_the_limits(alice: User, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract: the portal's text, parsed by the host program."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "hostscripts"))
    from labhost.host import limits as there

    assert there.parse(limits_text(alice, server)) == {}
    Limits.objects.create(memory=1, cpus=Decimal("0.1"), processes=64, gpus=",".join(map(str, range(64))), disk=1)
    read = there.parse(limits_text(alice, server))
    assert (read["memory"], read["cpus"], read["processes"], read["disk"]) == (str(1 << 30), "0.10", "64", str(1 << 30))
    assert read["gpus"].startswith("0,1,2")


def test_a_server_reads_its_own_limits(alice: User, server: Server, settings: Settings) -> None:
    settings.PLAIN_TEXT_BY_ADDRESS = True
    gpu = Client(REMOTE_ADDR=server.address)
    assert gpu.get("/user/alice/limits?server=gpu17").content.decode() == FREE
    for page, status in (
        ("/user/alice/limits", 404),
        ("/user/alice/limits?server=gpu99", 404),
        ("/user/nobody-here/limits?server=gpu17", 404),
    ):
        answer = gpu.get(page)
        assert answer.status_code == status and len(answer.content.splitlines()) == 1
    assert Client(REMOTE_ADDR="192.0.2.1").get("/user/alice/limits?server=gpu17").status_code == 403


WRONG = [
    {"memory": 0},
    {"cpus": Decimal("0.05")},
    {"cpus": Decimal("-1")},
    {"processes": 1},
    {"disk": 0},
    {"gpus": "0,"},
    {"gpus": "max"},
    {"gpus": "0\n"},
    {"gpus": "100"},
]


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_values_that_hosts_refuse_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Limits(**values).full_clean()


@pytest.mark.parametrize("shape", ["everybody", "person", "server", "container"])
def test_the_scope_of_each_row_is_unique(alice: User, server: Server, shape: str) -> None:
    about: dict[str, Any] = {"user": alice} if shape in ("person", "container") else {}
    about |= {"server": server} if shape in ("server", "container") else {}
    Limits.objects.create(**about)
    with pytest.raises(IntegrityError), transaction.atomic():
        Limits.objects.create(**about)
    assert Limits.objects.count() == 1


def test_staff_can_set_change_and_remove_limits_and_it_is_audited(staff: User, alice: User, server: Server) -> None:
    client = signed_in(staff)
    values = {
        "user": alice.pk,
        "server": server.pk,
        "memory": 64,
        "cpus": "2.5",
        "processes": "",
        "gpus": "0",
        "disk": "",
    }
    assert client.post("/admin/servers/limits/add/", values).status_code == 302
    row = Limits.objects.get()
    assert client.post(f"/admin/servers/limits/{row.pk}/change/", values | {"memory": 32}).status_code == 302
    assert b"alice on gpu17" in client.get("/admin/servers/limits/").content
    assert client.post(f"/admin/servers/limits/{row.pk}/delete/", {"post": "yes"}).status_code == 302
    events = AuditEvent.objects.filter(verb__startswith="limits.").order_by("pk")
    assert [(event.verb, event.object, event.actor) for event in events] == [
        ("limits.set", "alice on gpu17", "warden"),
        ("limits.set", "alice on gpu17", "warden"),
        ("limits.removed", "alice on gpu17", "warden"),
    ]
    assert events[1].detail == {"memory": "32", "cpus": "2.5", "gpus": "0"}


def test_people_cannot_set_limits(alice: User) -> None:
    assert signed_in(alice).post("/admin/servers/limits/add/", {"memory": 64}).status_code == 302
    assert not Limits.objects.exists()
