"""Case Y1: a server that is online again reports it, and does not wait for the portal's next retry."""

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import is_known, join, paste
from tests.lab.waiting import eventually
from tests.lab.walk import Walk

NAME = "gpu18"
# As after hours of failed attempts.
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
    """gpu18 without its timer, so that it reports nothing by itself."""
    machine = lab.servers[NAME]
    machine.run("systemctl stop lab-iam-reconcile.timer lab-iam-reconcile.service")
    yield machine
    machine.run("systemctl start ssh lab-iam-reconcile.timer")


def row(lab: Lab) -> tuple[str | None, str | None]:
    """The portal's state of the server: its last error and its next retry."""
    error, moment = Walk(lab).rows(
        "SELECT last_error, next_attempt FROM servers_serverstate s JOIN servers_server v ON v.id = s.server_id WHERE v.name = ?",
        NAME,
    )[0]
    return error, moment


def test_y1_a_server_gets_its_keys_as_soon_as_it_reports_that_it_is_online(lab: Lab, quiet: Machine) -> None:
    alice = join(lab, "alice")
    quiet.run("systemctl stop ssh; loginctl terminate-user iam")  # the open session ends too
    line = alice.make_key("id_back")
    paste(lab, "alice", line)
    eventually(lambda: row(lab)[0], "a failed connection to the server")
    lab.portal.manage("shell", "-c", BACK_OFF)
    quiet.run("systemctl start ssh")
    lab.portal.manage("shell", "-c", PASS)
    assert not is_known(quiet, line), "the portal waits"
    quiet.run("systemctl start lab-iam-reconcile")
    eventually(lambda: is_known(quiet, line), "the key", 10)
    eventually(lambda: row(lab) == (None, None), "no error and no retry")


def test_y1_only_a_server_can_report_itself_and_nobody_learns_the_server_names(lab: Lab, quiet: Machine) -> None:
    lab.portal.manage("shell", "-c", BACK_OFF)
    before = row(lab)
    url, other = f"http://iam.mylab.com/servers/{NAME}/online", lab.servers["gpu17"]
    answers = {
        "its own address without a token": quiet.run(f"{POST} {url}").stdout,
        "a guess": quiet.run(f"{POST} --header 'Authorization: Bearer 0123456789abcdef' {url}").stdout,
        "the token of another server": other.run(f'{POST} --header "Authorization: Bearer {TOKEN}" {url}').stdout,
        "an unknown server": other.run(f"{POST} {url.replace(NAME, 'gpu99')}").stdout,
    }
    assert set(answers.values()) == {"Not allowed: send the token of this server.\n 403"}, answers
    assert row(lab) == before
    assert quiet.run(f'{POST} --header "Authorization: Bearer {TOKEN}" {url}').stdout == " 204"
    eventually(lambda: row(lab)[1] is None, "a retry")
