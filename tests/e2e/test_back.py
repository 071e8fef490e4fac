"""Case Y1: a server that comes back says so itself, and need not wait until the portal's next try."""

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import is_known, join, paste
from tests.lab.waiting import eventually
from tests.lab.walk import Walk

NAME = "gpu18"
# As after hours of failed tries.
BACK_OFF = f"""
from datetime import timedelta
from django.utils import timezone
from servers.models import ServerState
now = timezone.now()
ServerState.objects.filter(server__name="{NAME}").update(
    next_attempt=now + timedelta(hours=1), attempts=9, attempted_at=now - timedelta(minutes=5)
)
"""
PASS = "from servers.services.push import runner; runner.push_due(actor='test')"
POST = "curl --silent --request POST --write-out ' %{http_code}' --max-time 10"
TOKEN = "$(sed -n 's/^token *= *//p' /etc/lab-iam/host.conf)"


@pytest.fixture
def quiet(lab: Lab) -> Iterator[Machine]:
    """gpu18 while it says nothing by itself, as between two turns of its timer."""
    machine = lab.servers[NAME]
    machine.run("systemctl stop lab-iam-reconcile.timer lab-iam-reconcile.service")
    yield machine
    machine.run("systemctl start ssh lab-iam-reconcile.timer")


def row(lab: Lab) -> tuple[str, str | None]:
    """What the portal has noted of the server: its last error and when it is tried next."""
    error, moment = Walk(lab).rows(
        "SELECT last_error, next_attempt FROM servers_serverstate s JOIN servers_server v ON v.id = s.server_id WHERE v.name = ?",
        NAME,
    )[0]
    return error, moment


def test_y1_a_server_that_was_away_has_the_keys_as_soon_as_it_says_that_it_is_back(lab: Lab, quiet: Machine) -> None:
    alice = join(lab, "alice")
    quiet.run("systemctl stop ssh; loginctl terminate-user iam")  # the session that was open goes too
    line = alice.make_key("id_back")
    paste(lab, "alice", line)
    eventually(lambda: row(lab)[0], "the portal has found it away")
    lab.portal.manage("shell", "-c", BACK_OFF)
    quiet.run("systemctl start ssh")
    lab.portal.manage("shell", "-c", PASS)
    assert not is_known(quiet, line), "the portal waits"
    quiet.run("systemctl start lab-iam-reconcile")
    eventually(lambda: is_known(quiet, line), "the key", 10)
    eventually(lambda: row(lab) == ("", None), "all is well")


def test_y1_nobody_else_says_it_and_nobody_learns_which_servers_there_are(lab: Lab, quiet: Machine) -> None:
    lab.portal.manage("shell", "-c", BACK_OFF)
    before = row(lab)
    url, other = f"http://iam.mylab.com/servers/{NAME}/online", lab.servers["gpu17"]
    answers = {
        "its own address alone": quiet.run(f"{POST} {url}").stdout,
        "a guess": quiet.run(f"{POST} --header 'Authorization: Bearer 0123456789abcdef' {url}").stdout,
        "a server's token for another": other.run(f'{POST} --header "Authorization: Bearer {TOKEN}" {url}').stdout,
        "a server that is none": other.run(f"{POST} {url.replace(NAME, 'gpu99')}").stdout,
    }
    assert set(answers.values()) == {"Send this server's own token.\n 403"}, answers
    assert row(lab) == before
    assert quiet.run(f'{POST} --header "Authorization: Bearer {TOKEN}" {url}').stdout == " 204"
    eventually(lambda: row(lab)[1] is None, "it was tried")
