"""Each server has one row of state, however it was created."""

import pytest
from django.db import IntegrityError, transaction

from servers.models import Server, ServerState

pytestmark = pytest.mark.django_db


def test_a_new_server_has_one_state_also_after_saving_it_again(server: Server) -> None:
    server.save()
    assert ServerState.objects.get() == Server.objects.get().state


def test_servers_created_in_bulk_have_states_too() -> None:
    Server.objects.bulk_create([Server(name=f"gpu{n}", address=f"172.16.2.{n}") for n in range(3)])
    assert [row.state.held_revision for row in Server.objects.all()] == [0, 0, 0]


def test_servers_are_read_with_their_states_in_one_query(server: Server, django_assert_num_queries: object) -> None:
    with django_assert_num_queries(1):  # type: ignore[operator]
        assert [row.state.attempts for row in Server.objects.in_service()] == [0]


def test_the_database_refuses_half_a_range_of_unconfirmed_revisions(server: Server) -> None:
    with pytest.raises(IntegrityError, match="unconfirmed_is_a_range"), transaction.atomic():
        ServerState.objects.update(unconfirmed_first=3, unconfirmed_last=2)
