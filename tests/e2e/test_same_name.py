"""O3, Z11: a name is a new person's, and a server that was not in the portal still has the previous one's container."""

import shutil
from collections.abc import Iterator

import pytest

from tests.e2e import snapshots
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
    """Another person in the directory, with a running container on gpu18."""
    monkeypatch.setitem(PEOPLE, NAME, ("Dana Doe", "dana-password"))
    monkeypatch.setitem(lab.people, NAME, Person(NAME, lab.folder / "people" / NAME))
    lab.directory.add_user(NAME, *PEOPLE[NAME])
    lab.people[NAME].create()
    person = register(lab, NAME, "gpu18")
    person.ssh("gpu18-manage")
    yield person
    lab.portal.manage("remove_container", "gpu18", NAME, "--yes", "--purge", check=False)


def replaced(lab: Lab) -> Person:
    """A new person with the same name, on gpu17 and on gpu18, which was removed from the portal and added again."""
    kept = lab.portal.manage("shell", "-c", REPLACED).stdout.splitlines()[-1]
    new_person = lab.people[NAME]
    shutil.move(new_person.folder, f"{new_person.folder}-former")
    new_person.create()
    page = paste(lab, NAME, new_person.public_key)
    lab.portal.manage("shell", "-c", ADDED.format(kept))
    page.sign_in(NAME, PEOPLE[NAME][1])
    new_person.config.write_text(page.get(f"/user/{NAME}/.ssh/config").text)
    return new_person


def test_o3_z11_a_new_person_inherits_neither_access_nor_files(lab: Lab, dana: Person) -> None:
    machine = snapshots.configure(lab, "gpu18")
    dana.ssh("gpu18", "echo secret > private")
    dana.ssh("gpu18-manage", "snapshot one")
    formers = machine.run(f"ls {snapshots.NAS}/gpu18").stdout
    rootfs = f"/home/{NAME}/.local/share/lxc/{NAME}/rootfs"
    previous = Person(NAME, lab.folder / "people" / f"{NAME}-former")
    new_person = replaced(lab)
    output = lab.portal.manage("push_keys", "gpu18", "--wait", check=False).stdout
    eventually(lambda: is_known(machine, new_person.public_key), "the new person's line for register")
    assert machine.file(f"/home/{NAME}/.ssh/authorized_keys") == "", output
    assert machine.file(f"{rootfs}/home/{NAME}/.ssh/authorized_keys") == ""
    assert not is_known(machine, previous.public_key)
    for person in (new_person, previous):
        assert person.ssh("gpu18-manage", "status", check=False).returncode == 255
        assert person.ssh("gpu18", "true", check=False).returncode == 255
    machine.run(f"{LABHOST} autostart {NAME}")  # as after a reboot, because the previous person's container still runs
    page = browser(lab)
    page.sign_in(NAME, PEOPLE[NAME][1])
    assert int(page.get(f"/user/{NAME}/port").text) not in faults.look(machine, NAME).leads_to
    refused = new_person.ssh("register@gpu18-manage", NAME, check=False)
    assert refused.returncode == 1 and "somebody else of that name" in refused.stdout + refused.stderr
    assert "belongs to somebody else who had this user name" in page.get("/me/").text
    lab.portal.manage("remove_container", "gpu18", NAME, "--yes")
    done = new_person.ssh("register@gpu18-manage", NAME, timeout=120)
    assert "kept" not in done.stdout + done.stderr, "the new person sees the previous person's files"
    new_person.ssh("gpu18-manage")
    assert new_person.ssh("gpu18", "id -un").stdout == f"{NAME}\n"
    assert body(new_person.public_key) in machine.file(f"/home/{NAME}/.ssh/authorized_keys")
    assert "no snapshots yet" in new_person.ssh("gpu18-manage", "snapshots").stdout
    refused = new_person.ssh("gpu18-manage", "recover one", check=False)
    assert refused.returncode == 3 and "there is no snapshot one" in refused.stdout + refused.stderr
    new_person.ssh("gpu18-manage", "snapshot one")
    lab.portal.manage("remove_container", "gpu18", NAME, "--yes", "--purge")
    assert machine.run(f"ls {snapshots.NAS}/gpu18").stdout == formers, "only the new person's are purged"
