import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import User
from accounts.services import numbers
from accounts.services.keys import add_keys, revoke_keys
from servers.models import Placement, Server, ServerState
from servers.protocol import Message, UserResult
from tests.accounts.keys import fingerprint, line
from tests.servers.conftest import PINNED
from tests.servers.pushes import GOOD, fail, push

pytestmark = pytest.mark.django_db


def run(*words: str) -> tuple[int, str]:
    """Exit status, and the output followed by the error."""
    out = io.StringIO()
    try:
        call_command("push_status", *words, stdout=out)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    return 0, out.getvalue()


def as_json(*words: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run("--json", *words)[1].splitlines()[0])
    return result


@pytest.fixture
def both(server: Server, alice: User, bob: User) -> Server:
    """gpu17 has all keys, gpu18 was down at the last push."""
    gpu18 = Server.objects.create(name="gpu18", address="172.16.2.18", host_key=PINNED)
    add_keys(actor="alice", user=alice, pasted=line(1))
    for one in (server, gpu18):
        push(one, {"alice": GOOD})
    add_keys(actor="bob", user=bob, pasted=line(2))
    push(server, {"alice": GOOD, "bob": GOOD})
    fail(gpu18)
    return gpu18


def test_all_live_is_exit_status_0(server: Server, alice: User) -> None:
    add_keys(actor="alice", user=alice, pasted=line(1))
    push(server, {"alice": GOOD})
    assert run() == (0, "gpu17: live, revision 1\n1 key live on 1 server\n")


def test_pending_keys_are_exit_status_1_with_the_reason(both: Server) -> None:
    code, out = run()
    first, second, last = out.splitlines()
    assert code == 1 and first == "gpu17: live, revision 2" and last == "1 of 2 keys pending on gpu18."
    assert second.startswith("gpu18: the server cannot be reached (no route to host), since ")
    assert second.endswith("(1 live, 1 pending)")


def test_one_person_is_shown_place_by_place(both: Server) -> None:
    code, out = run("--user", "Bob")
    assert code == 1 and f"bob {fingerprint(line(2))} me@laptop: live on 1 of 2 servers" in out
    assert "  gpu17: live, since " in out and "    register: pending" in out
    assert "    host account: no account there yet" in out
    assert run("--user", "alice")[0] == 0


def test_one_server_can_be_selected(both: Server) -> None:
    assert run("--server", "gpu17")[0] == 0
    code, out = run("--server", "gpu18")
    assert code == 1 and "gpu17" not in out and "bob SHA256:" in out and "alice" not in out


def test_a_removed_key_that_is_still_on_a_server_is_reported(both: Server, alice: User) -> None:
    revoke_keys(actor="alice", keys=alice.ssh_keys.all())
    push(Server.objects.get(name="gpu17"), {"alice": GOOD, "bob": GOOD})
    result = as_json("--user", "alice")
    (key,) = result["keys"]
    assert key["removed"] and key["summary"] == "removed, but still accepted on gpu18"
    assert key["servers"]["gpu18"]["state"] == "removing" and key["servers"]["gpu17"]["state"] == "removed"
    push(both, {"alice": GOOD, "bob": GOOD})
    assert run()[0] == 0


def test_json_is_one_object(both: Server) -> None:
    result = as_json()
    assert result["revision"] == 2 and result["ok"] is False
    here = {"revision": 2, "keys": {"live": 2}, "ok": True, "ahead": False, "reason": "", "low_disks": []}
    assert result["servers"]["gpu17"] == here
    assert result["servers"]["gpu18"]["ok"] is False and "no route" in result["servers"]["gpu18"]["reason"]
    (key,) = result["keys"]
    assert (key["user"], key["summary"]) == ("bob", "live on 1 of 2 servers")
    assert key["servers"]["gpu18"]["places"]["register"] == "pending" and key["servers"]["gpu18"]["next_retry"]


def test_z1_a_disk_that_is_almost_full_is_a_warning(both: Server) -> None:
    ServerState.objects.filter(server__name="gpu17").update(
        disks={"homes": {"size": 100 << 30, "free": 1 << 20, "inodes": 0, "free_inodes": 0}}
    )
    assert run()[1].splitlines()[1] == "  warning: low disk: people's files: 0.0 GB free"
    assert as_json()["servers"]["gpu17"]["low_disks"] == ["people's files: 0.0 GB free"]


@pytest.mark.parametrize("words", [["--user", "nobody"], ["--server", "gpu99"]])
def test_unknown_names_are_a_usage_error(both: Server, words: list[str]) -> None:
    assert run(*words)[0] == 2


def test_y8_one_failed_person_is_found_among_many(server: Server, alice: User) -> None:
    for number in range(5):
        user = User.objects.create_user(f"u{number}", directory_id=f"d{number}")
        numbers.assign(user)
        add_keys(actor="test", user=user, pasted=line(number))
    bad = UserResult("failed", "absent", Message("home_missing"))
    push(server, {f"u{number}": bad if number == 3 else GOOD for number in range(5)})
    assert Placement.objects.count() == 5
    (key,) = as_json()["keys"]
    assert key["user"] == "u3" and key["servers"]["gpu17"]["reason"] == "the home directory is missing"
