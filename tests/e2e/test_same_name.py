"""O3: a name came to somebody new, and a server that the portal had forgotten still has the former person's container."""

import shutil
from collections.abc import Iterator

import pytest

from tests.lab import faults
from tests.lab.faults import LABHOST
from tests.lab.lab import PEOPLE, Lab
from tests.lab.people import browser, is_known, paste, register
from tests.lab.person import Person
from tests.lab.waiting import eventually
from tests.lab.walk import body

NAME = "dana"
REPLACED = f"""
from accounts.models import User
from accounts.services import people
from servers.models import Server
from servers.services.fleet import servers
server, dana = Server.objects.get(name="gpu18"), User.objects.get(username="{NAME}")
print(server.address, server.host_key, server.token_digest, sep="|")
servers.remove(actor="test", server=server)
people.set_active(actor="test", user=dana, active=False)
people.delete(actor="test", user=dana)
"""
ADDED = """
from servers.models import Server
from servers.services.fleet import servers
address, host_key, token_digest = {!r}.split("|")
server = servers.add(actor="test", name="gpu18", address=address, host_key=host_key)
Server.objects.filter(pk=server.pk).update(token_digest=token_digest)
"""


@pytest.fixture
def dana(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    """One more in the directory, with a running container on gpu18."""
    monkeypatch.setitem(PEOPLE, NAME, ("Dana Doe", "dana-password"))
    monkeypatch.setitem(lab.people, NAME, Person(NAME, lab.folder / "people" / NAME))
    lab.directory.add_user(NAME, *PEOPLE[NAME])
    lab.people[NAME].create()
    person = register(lab, NAME, "gpu18")
    person.ssh("gpu18-manage")
    yield person
    lab.portal.manage("remove_container", "gpu18", NAME, "--yes", "--purge", check=False)


def replaced(lab: Lab) -> Person:
    """Somebody new of the same name, known to gpu17 and to gpu18, which the portal had lost and has again."""
    kept = lab.portal.manage("shell", "-c", REPLACED).stdout.splitlines()[-1]
    newcomer = lab.people[NAME]
    shutil.move(newcomer.folder, f"{newcomer.folder}-former")
    newcomer.create()
    page = paste(lab, NAME, newcomer.public_key)
    lab.portal.manage("shell", "-c", ADDED.format(kept))
    page.sign_in(NAME, PEOPLE[NAME][1])
    newcomer.config.write_text(page.get(f"/user/{NAME}/.ssh/config").text)
    return newcomer


def test_o3_a_newcomers_keys_do_not_reach_the_container_of_her_predecessor(lab: Lab, dana: Person) -> None:
    machine = lab.servers["gpu18"]
    rootfs = f"/home/{NAME}/.local/share/lxc/{NAME}/rootfs"
    former = Person(NAME, lab.folder / "people" / f"{NAME}-former")
    newcomer = replaced(lab)
    told = lab.portal.manage("push_keys", "gpu18", "--wait", check=False).stdout
    eventually(lambda: is_known(machine, newcomer.public_key), "the newcomer's line for register")
    assert machine.file(f"/home/{NAME}/.ssh/authorized_keys") == "", told
    assert machine.file(f"{rootfs}/home/{NAME}/.ssh/authorized_keys") == ""
    assert not is_known(machine, former.public_key)
    for person in (newcomer, former):
        assert person.ssh("gpu18-manage", "status", check=False).returncode == 255
        assert person.ssh("gpu18", "true", check=False).returncode == 255
    machine.run(f"{LABHOST} autostart {NAME}")  # as after a reboot, for the former person's container still runs
    page = browser(lab)
    page.sign_in(NAME, PEOPLE[NAME][1])
    assert int(page.get(f"/user/{NAME}/port").text) not in faults.look(machine, NAME).leads_to
    refused = newcomer.ssh("register@gpu18-manage", NAME, check=False)
    assert refused.returncode == 1 and "somebody else of that name" in refused.stdout + refused.stderr
    assert "somebody else of that name" in page.get("/me/").text
    lab.portal.manage("remove_container", "gpu18", NAME, "--yes")
    said = newcomer.ssh("register@gpu18-manage", NAME, timeout=120)
    assert "kept" not in said.stdout + said.stderr, "the former person's files are no business of hers"
    newcomer.ssh("gpu18-manage")
    assert newcomer.ssh("gpu18", "id -un").stdout == f"{NAME}\n"
    assert body(newcomer.public_key) in machine.file(f"/home/{NAME}/.ssh/authorized_keys")
