"""The worker's memory over many passes; `./lab bench soak` does the same with 200 servers and 1,000 passes."""

import pytest
from django.utils import timezone

from accounts.models import User
from servers.models import Server
from servers.services.push import runner
from tests.bench.soak import memory_mb
from tests.servers.conftest import make_server
from tests.servers.farm import Farm
from tests.servers.keyfile import expected, new_key

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick"), pytest.mark.slow]


def change_and_push(user: User) -> None:
    user.ssh_keys.all().delete()
    new_key(user)
    Server.objects.filter(name="dead").update(next_attempt=timezone.now())
    runner.push_due(actor="test")


def test_the_workers_memory_is_flat_over_many_passes_with_a_dead_server_among_them(farm: Farm, alice: User) -> None:
    make_server(farm)
    make_server(farm, 1, "dead", address="127.0.0.99")
    sizes = []
    for passes in (30, 60, 60):  # the first until everything is loaded that ever will be
        for _ in range(passes):
            change_and_push(alice)
        sizes.append(memory_mb())
    first, second = sizes[1] - sizes[0], sizes[2] - sizes[1]
    assert min(first, second) < 2, f"more than 33 KB a pass, twice: {sizes}"  # a leak does not rest
    assert farm.register_file() == expected()
