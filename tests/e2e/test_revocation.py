"""Case Z9: staff revoke keys on a booted server while the portal is down, and the portal honours it when it is back."""

import subprocess

from tests.lab.faults import LABHOST
from tests.lab.lab import Lab
from tests.lab.people import is_known, paste, register
from tests.lab.waiting import eventually
from tests.lab.walk import Walk

NAME = "bob"


def test_z9_keys_are_revoked_by_hand_and_the_portal_removes_them_everywhere(lab: Lab) -> None:
    bob = register(lab, NAME)
    bob.ssh("gpu17-manage")
    machine, other = lab.servers["gpu17"], lab.servers["gpu18"]
    eventually(lambda: is_known(other, bob.public_key), "the key on the other server")
    stays = subprocess.Popen(bob.argv("-N", "gpu17-manage"), stdin=subprocess.DEVNULL)
    eventually(lambda: machine.run(f"pgrep -u {NAME} -x sshd", check=False).stdout, "the session")
    lab.portal.web.stop()
    lab.portal.worker.stop()
    try:
        done = machine.run(f"{LABHOST} revoke {NAME}")
        assert f"revoked: {NAME} SHA256:" in done.stdout
        assert stays.wait(20) == 255, "the open session was ended"
        for after in ("true", f"{LABHOST} stop {NAME} && {LABHOST} start {NAME}", f"{LABHOST} reconcile"):
            machine.run(after)
            assert machine.file(f"/home/{NAME}/.ssh/authorized_keys") == "", after
            assert bob.ssh("gpu17-manage", "status", check=False).returncode == 255, after
            assert bob.ssh("gpu17", "true", check=False).returncode == 255, "the container refuses it, too"
            assert not is_known(machine, bob.public_key)
        assert is_known(other, bob.public_key), "nobody has told the other server yet"
    finally:
        stays.kill()
        lab.portal.start_worker()
        lab.portal.start_web()
    eventually(lambda: _reported(lab) and not is_known(other, bob.public_key), "the key is removed everywhere", 150)
    removed = "SELECT actor FROM accounts_auditevent WHERE verb = 'key.removed' ORDER BY id DESC LIMIT 1"
    assert Walk(lab).rows(removed) == [("gpu17",)]
    eventually(lambda: machine.run(f"{LABHOST} revoke --list").stdout == "", "the acknowledgement", 60)
    paste(lab, NAME, bob.public_key)  # the decision of the person, not of the server
    eventually(lambda: bob.ssh("gpu17-manage", check=False).returncode == 0, "the key that was added again", 60)


def _reported(lab: Lab) -> bool:
    """What the timer does each minute."""
    lab.servers["gpu17"].run(f"{LABHOST} reconcile")
    return True
