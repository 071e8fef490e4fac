"""The portal's state of a key, compared with the files that the real host program writes."""

import base64
import hashlib

import pytest
from django.utils import timezone

from accounts.models import SSHKey, User
from accounts.services.keys import add_keys, revoke_key
from servers.models import Server, ServerState
from servers.services.push import runner
from servers.services.status import key_status
from tests.accounts.keys import line
from tests.servers.conftest import make_server
from tests.servers.farm import ADDRESSES, Farm

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


def states(key: SSHKey) -> dict[str, str]:
    """The state of the key on each server.

    Hosts of the farm have no accounts: a key is "not registered" when its owner can register with it.
    """
    (status,) = key_status.status_of([SSHKey.objects.select_related("user").get(pk=key.pk)])
    return {one.server.name: str(one.state) for one in status.servers}


def has(farm: Farm, number: int, key: SSHKey) -> bool:
    return key.blob in farm.register_file(ADDRESSES[number])


def push_due() -> None:
    ServerState.objects.update(next_attempt=timezone.now())
    runner.push_due(actor="test")


def take_down(number: int) -> None:
    Server.objects.filter(name=f"gpu{17 + number}").update(address="127.0.0.99")


def bring_back(number: int) -> None:
    Server.objects.filter(name=f"gpu{17 + number}").update(address=ADDRESSES[number])


def test_a_key_that_never_left_the_portal_is_not_removing(farm: Farm, alice: User) -> None:
    make_server(farm, 0)
    take_down(0)
    (key,) = add_keys(actor="alice", user=alice, pasted=line(1)).added
    push_due()
    revoke_key(actor="alice", key=key)
    push_due()
    assert states(key) == {"gpu17": "removed"}
    bring_back(0)
    push_due()
    assert states(key) == {"gpu17": "removed"} and not has(farm, 0, key)


def test_live_and_removed_are_shown_after_the_hosts_confirmed(farm: Farm, alice: User) -> None:
    for number in (0, 1):
        make_server(farm, number)
    take_down(1)
    (key,) = add_keys(actor="alice", user=alice, pasted=line(1)).added
    assert states(key) == {"gpu17": "pending", "gpu18": "pending"}
    push_due()
    assert (
        states(key) == {"gpu17": "not registered", "gpu18": "pending"} and has(farm, 0, key) and not has(farm, 1, key)
    )
    bring_back(1)
    push_due()
    assert states(key) == {"gpu17": "not registered", "gpu18": "not registered"} and has(farm, 1, key)
    take_down(1)
    revoke_key(actor="alice", key=key)
    assert states(key) == {"gpu17": "removing", "gpu18": "removing"}
    push_due()
    assert states(key) == {"gpu17": "removed", "gpu18": "removing"} and not has(farm, 0, key) and has(farm, 1, key)
    bring_back(1)
    push_due()
    assert states(key) == {"gpu17": "removed", "gpu18": "removed"} and not has(farm, 1, key)


@pytest.mark.parametrize("behaviour", ["garbage", "liar", "fails-all"])
def test_a_lying_or_failing_host_makes_nothing_live(farm: Farm, alice: User, behaviour: str) -> None:
    make_server(farm)
    farm.behave(ADDRESSES[0], behaviour)
    (key,) = add_keys(actor="alice", user=alice, pasted=line(1)).added
    push_due()
    assert states(key) == {"gpu17": "pending"}


def test_y8_a_bad_entry_is_not_live_and_the_others_are(farm: Farm, alice: User, bob: User) -> None:
    make_server(farm)
    (alices,) = add_keys(actor="alice", user=alice, pasted=line(1)).added
    (bobs,) = add_keys(actor="bob", user=bob, pasted=line(2)).added
    digest = base64.b64encode(hashlib.sha256(base64.b64decode("AAAAbrokenke")).digest()).decode().rstrip("=")
    SSHKey.objects.filter(pk=bobs.pk).update(blob="AAAAbrokenke", fingerprint=f"SHA256:{digest}")
    bobs.refresh_from_db()
    push_due()
    assert states(alices) == {"gpu17": "not registered"} and has(farm, 0, alices)
    assert states(bobs) == {"gpu17": "failed"}
