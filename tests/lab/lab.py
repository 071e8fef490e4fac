"""One complete lab: created, entered and removed by its name (`demo`, `test`)."""

import fcntl
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.lab import images, kernel, nvidia
from tests.lab.directory import Directory
from tests.lab.machine import Machine
from tests.lab.namespace import Namespace
from tests.lab.person import Person
from tests.lab.portal import Portal
from tests.lab.progress import progress
from tests.lab.shell import run

ROOT = Path("/var/lib/lab-iam-lab")
GATEWAY, PORTAL, DIRECTORY = "172.16.2.1", "172.16.2.2", "172.16.2.3"
SERVERS = {"gpu17": "172.16.2.17", "gpu18": "172.16.2.18"}
HOSTS = {"iam.mylab.com": PORTAL, "ldap.mylab.com": DIRECTORY}
FIRST_PORT = 22031
PEOPLE = {
    "lqchen": ("Liqun Chen", "lqchen-password"),
    "alice": ("Alice Archer", "alice-password"),
    "bob": ("Bob Baker", "bob-password"),
    "charlie": ("Charlie Chase", "charlie-password"),
    "boss": ("Bea Boss", "boss-password"),
}
STAFF = "boss"


class Lab:
    """The addresses are those of the original specification; each lab has its own network."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = ROOT / name
        self.namespace = Namespace(f"labiam-{name}")
        self.directory = Directory(self.folder / "directory", DIRECTORY, 389)
        self.portal = Portal(self.folder / "portal", PORTAL, self._settings())
        self.servers = {
            server: Machine(server, address, self.folder / "servers" / server) for server, address in SERVERS.items()
        }
        self.people = {person: Person(person, self.folder / "people" / person) for person in PEOPLE}

    def _settings(self) -> dict[str, str]:
        portal = self.folder / "portal"
        return {
            "DATA_DIR": str(portal / "data"),
            "DATABASE_URL": f"sqlite:///{portal / 'data/lab-iam.sqlite3'}",
            "SECRET_KEY_FILE": str(portal / "secret_key"),
            "ALLOWED_HOSTS": "iam.mylab.com,127.0.0.1,172.16.2.2",
            "PORTAL_URL": "http://iam.mylab.com",
            "LAB_PORTS": f"{FIRST_PORT}-22999",
            **self.directory.portal_settings(),
        }

    @property
    def exists(self) -> bool:
        running = any(machine.inits for machine in self.servers.values())
        return self.folder.exists() or self.namespace.exists or running

    def make(self, outside: socket.socket | None = None) -> None:
        """Set up all that a lab's administrator would, including two deployed servers, and enter the lab."""
        kernel.check()
        image, template = images.server_image(), images.template()
        self.folder.mkdir(parents=True)
        self.namespace.create([f"{address}/24" for address in (GATEWAY, PORTAL, DIRECTORY)])
        self.enter()
        with ThreadPoolExecutor() as pool:
            parts = [pool.submit(self._make_portal), pool.submit(self._make_directory)]
            parts += [pool.submit(self._make_server, machine, image, template) for machine in self.servers.values()]
            for part in parts:
                part.result()
        for person in self.people.values():
            person.create()
        with progress("starting the portal and installing the host programs on both servers"):
            self.portal.start(outside)
            with ThreadPoolExecutor() as pool:
                list(pool.map(self._deploy, self.servers.values()))

    def _make_portal(self) -> None:
        self.portal.create()
        self.portal.manage("create_portal_key")

    def _make_directory(self) -> None:
        self.directory.start()
        for name, (full_name, password) in PEOPLE.items():
            self.directory.add_user(name, full_name, password)
        self.directory.add_staff(STAFF)

    def _make_server(self, machine: Machine, image: Path, template: Path) -> None:
        key = self.folder / f"root-of-{machine.name}"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
        machine.create(image, gateway=GATEWAY, hosts=HOSTS, root_key=Path(f"{key}.pub").read_text())
        nvidia.prepare(machine)
        # deploy_server does not copy an archive that is already there, which saves time.
        shutil.copyfile(template, machine.folder / "templates/template.tar.zst")
        machine.boot()
        nvidia.make_devices(machine)

    def _deploy(self, machine: Machine) -> None:
        self.portal.manage("add_server", machine.name, machine.address, "--yes")
        key = self.folder / f"root-of-{machine.name}"
        self.portal.manage("deploy_server", machine.name, "--user", "root", "--identity", str(key))

    def enter(self) -> None:
        self.namespace.enter()

    def remove(self) -> None:
        """Stop and remove all of it, also an incomplete lab."""
        self.portal.stop()
        self.directory.stop()
        if self.namespace.exists:
            self.enter()
        self._stop_servers()
        if self.namespace.exists:
            self.namespace.end_orphans()
            self._stop_servers()  # one that such a process was just starting
        self.namespace.delete()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _stop_servers(self) -> None:
        for machine in self.servers.values():
            machine.stop()


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Hold the lock on the lab `name`. Raises BlockingIOError if another process holds it."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
