import pytest
from django.db import IntegrityError, transaction

from accounts.models import AuditEvent
from servers.models import Server
from servers.services.fleet import inspection, servers
from servers.services.fleet.servers import ServerRefused
from servers.services.push import results
from servers.ssh import host_keys
from servers.ssh.dial import RemoteError
from tests.servers.conftest import OTHER, PINNED, make_server
from tests.servers.farm import ADDRESSES, Farm

pytestmark = pytest.mark.django_db


def test_a_new_server_has_a_canonical_address_and_a_pinned_key() -> None:
    server = servers.add(actor="warden", name="gpu17", address="GPU17.lab", host_key=f"{PINNED} root@gpu17")
    assert (server.address, server.host_key, server.enabled) == ("gpu17.lab", PINNED, True)
    event = AuditEvent.objects.get(verb="server.added")
    assert event.actor == "warden" and event.detail["fingerprint"] == host_keys.fingerprint(PINNED)


@pytest.mark.parametrize("name", ["", "GPU17", "gpu 17", "-rf", "gpu17-manage", "x" * 64, "gpu17\nHost *", "gpu17\n"])
def test_an_invalid_host_name_is_refused(name: str) -> None:
    with pytest.raises(ServerRefused):
        servers.add(actor="warden", name=name, address="172.16.2.17", host_key=PINNED)


@pytest.mark.parametrize("address", ["", "a b", "-x", "10.0.0.1\nProxyCommand id", "a;b", "%h", "10.0.0.1\n"])
def test_an_address_invalid_in_an_ssh_config_is_refused(address: str) -> None:
    with pytest.raises(ServerRefused):
        servers.add(actor="warden", name="gpu17", address=address, host_key=PINNED)


def test_two_servers_cannot_share_an_address(server: Server) -> None:
    with pytest.raises(ServerRefused, match="has this address"):
        servers.add(actor="warden", name="gpu18", address=server.address, host_key=PINNED)


@pytest.mark.parametrize("fields", [{"name": "gpu17-manage"}, {"address": "a b"}, {"ssh_port": 0}])
def test_the_database_refuses_invalid_rows(server: Server, fields: dict[str, object]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Server.objects.filter(pk=server.pk).update(**fields)


def test_y5_only_the_host_key_that_was_shown_is_accepted(server: Server) -> None:
    results.record_offered_key(actor="worker", server=server, offered=OTHER)
    with pytest.raises(ServerRefused, match="another host key"):
        servers.accept_offered_key(actor="warden", server=server, fingerprint=host_keys.fingerprint(PINNED))
    servers.accept_offered_key(actor="warden", server=server, fingerprint=host_keys.fingerprint(OTHER))
    server.refresh_from_db()
    assert (server.host_key, server.offered_host_key) == (OTHER, "")
    event = AuditEvent.objects.get(verb="server.host_key_pinned")
    assert event.detail == {"before": host_keys.fingerprint(PINNED), "now": host_keys.fingerprint(OTHER)}


def test_taking_out_of_service_is_audited_once(server: Server) -> None:
    assert servers.set_enabled(actor="warden", server=server, enabled=False)
    assert not servers.set_enabled(actor="warden", server=server, enabled=False)
    assert AuditEvent.objects.filter(verb="server.disabled").count() == 1


def test_back_in_service_the_server_is_retried_at_once(server: Server) -> None:
    servers.set_enabled(actor="warden", server=server, enabled=False)
    servers.set_enabled(actor="warden", server=server, enabled=True)
    server.refresh_from_db()
    assert server.enabled and server.state.next_attempt


def test_the_probe_reports_the_host_and_updates_the_row(farm: Farm) -> None:
    server = make_server(farm)
    line = inspection.test(actor="warden", server=server)
    server.refresh_from_db()
    assert line.startswith("gpu17: answers as gpu17, host programs") and "\n" not in line
    assert server.state.labhost_version and server.state.last_contact


def test_y5_the_probe_stores_the_offered_key_of_a_server_without_a_pinned_one(farm: Farm) -> None:
    server = make_server(farm, host_key="")
    with pytest.raises(RemoteError, match="No host key is pinned") as refused:
        inspection.test(actor="warden", server=server)
    server.refresh_from_db()
    assert refused.value.code == "host_key_unknown" and server.offered_host_key == farm.host_key
    assert farm.commands() == []


def test_y5_the_probe_stores_a_changed_key_and_sends_nothing(farm: Farm) -> None:
    server = make_server(farm, host_key=OTHER)
    with pytest.raises(RemoteError, match="has changed"):
        inspection.test(actor="warden", server=server)
    server.refresh_from_db()
    assert server.offered_host_key == farm.host_key and farm.commands(ADDRESSES[0]) == []
