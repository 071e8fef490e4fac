"""The authorized_keys files of people: in their accounts on the host, and inside their containers.

A batch writes all new files beside the old ones, syncs them to the disk, and then renames them into place: a kill in
between leaves whole files, and thousands of files need one sync of the file system instead of thousands. A file that
cannot be replaced (the disk is full, say) loses the lines that are not wanted any more, see take_away.py.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from labhost.accounts import linux_accounts
from labhost.errors import LabhostError
from labhost.host import Host, User
from labhost.keys import take_away
from labhost.keys.public_keys import KeyMap, PublicKey, render_container, render_host
from labhost.storage import drivers
from labhost.system import failpoints, openat2

NAME = "authorized_keys"
MOST = 8 << 20  # bytes of one person's file that is shortened in place; a longer one is removed
REGISTER_MOST = 1 << 30  # the same of the register account's file
FEW = 32  # files that are synced one by one; for more, the whole file system is
HOST, CONTAINER = "host", "container"
_HOST_OWNER = (0, 0)
Failed = Callable[[User, str, LabhostError | OSError], None]


class Batch:
    """New key files of many people. `failed` is called for each that cannot be put in place.

    `withheld`: why keys are only taken away; the error of people who would get one.
    """

    def __init__(self, host: Host, failed: Failed, people: Collection[str], withheld: LabhostError | None) -> None:
        self._host, self._failed, self._withheld = host, failed, withheld
        self.known = linux_accounts.passwd_entries(people)
        self._few = 2 * len(people) <= FEW
        self._staged: list[tuple[User, str, str]] = []  # with the text
        self._disks: dict[int, int] = {}  # device number -> a descriptor on it

    def stage(self, user: User, place: str, keys: Sequence[PublicKey]) -> str:
        """written (by commit), unchanged, or absent if the person has no such place. LabhostError, OSError."""
        with _folder(self._host, user, place, self.known) as folder:
            if folder is None or (user.removal and keys):
                return "absent"
            owner, mode, text = _file(user, place, keys)
            if self._withheld:
                return replace(folder, text, owner=owner, mode=mode, withheld=self._withheld)
            try:
                if not openat2.stage_file(folder, NAME, text, owner=owner, mode=mode, durable=self._few):
                    return "unchanged"
            except OSError as error:
                return _without_room(folder, text, error)
            self._staged.append((user, place, text))
            device = os.fstat(folder).st_dev
            if not self._few and device not in self._disks:
                self._disks[device] = os.dup(folder)
        return "written"

    def commit(self) -> None:
        try:
            problem = self._sync()
            failpoints.hit("keys-staged")
            for user, place, text in self._staged:
                try:
                    self._put(user, place, text, problem)
                except (LabhostError, OSError) as error:
                    self._failed(user, place, error)
            if problem is None and (problem := self._sync()) is not None:
                for user, place, _ in self._staged:
                    self._failed(user, place, problem)
        finally:
            for fd in self._disks.values():
                os.close(fd)

    def _put(self, user: User, place: str, text: str, problem: OSError | None) -> None:
        # Opened once more: a hostile owner may have changed the folder meanwhile; links are never followed.
        with _folder(self._host, user, place, self.known) as folder:
            if folder is None:
                raise LabhostError("it has just been removed", reason="just_removed")
            try:
                if problem is not None:  # the new file may be cut on the disk
                    openat2.discard_staged(folder, NAME)
                    raise problem
                openat2.commit_staged(folder, NAME)
            except OSError as error:
                _without_room(folder, text, error)
            if self._few:
                os.fsync(folder)

    def _sync(self) -> OSError | None:
        try:
            for fd in self._disks.values():
                openat2.sync_file_system(fd)
        except OSError as error:
            return error
        return None


def write(host: Host, user: User, place: str, keys: Sequence[PublicKey]) -> str:
    """Write one file of one person: written, unchanged or absent. The keys lock must be held."""
    with _folder(host, user, place, None) as folder:
        if folder is None or (user.removal and keys):
            return "absent"
        owner, mode, text = _file(user, place, keys)
        return replace(folder, text, owner=owner, mode=mode)


def replace(
    folder: int, text: str, *, owner: tuple[int, int], mode: int, withheld: LabhostError | None = None, most: int = MOST
) -> str:
    """Replace the key file in a folder: written or unchanged. OSError, or `withheld`, if it lacks keys then."""
    try:
        if withheld is None:
            return "written" if openat2.replace_file(folder, NAME, text, owner=owner, mode=mode) else "unchanged"
        if openat2.matches(folder, NAME, text, owner=owner, mode=mode):
            return "unchanged"
        raise withheld
    except (LabhostError, OSError) as error:
        return _without_room(folder, text, error, most)


def _without_room(folder: int, text: str, problem: LabhostError | OSError, most: int = MOST) -> str:
    """Take the other keys away where the file cannot be replaced; `problem` is raised if one of its keys is missing."""
    if not take_away.take_away(folder, NAME, text, most):
        raise problem
    return "written"


def write_register(host: Host, users: KeyMap, withheld: LabhostError | None) -> str:
    """The key file of the register account: an outcome of the protocol."""
    folder, owner = host.paths.home / "register" / ".ssh", (os.geteuid(), os.getegid())
    if not folder.is_dir():
        return "absent"
    options: dict[str, Any] = {"owner": owner, "mode": 0o644, "withheld": withheld, "most": REGISTER_MOST}
    try:
        with openat2.directory(folder) as parent:
            return replace(parent, users.render_register(), **options)
    except (LabhostError, OSError):
        return "failed"


def shorten(host: Host, name: str, keys: Sequence[PublicKey]) -> None:
    """Take the other keys of a host account away, whose state file is damaged. Nothing is written for it otherwise."""
    with suppress(LabhostError, OSError), _host_folder(host, name) as folder:
        take_away.take_away(folder, NAME, render_host(keys), MOST)


def write_in_container(host: Host, user: User, name: str, text: str) -> str:
    """~/.ssh/NAME in the container: written, unchanged, or absent if there is no root file system."""
    with _container_folder(host, user, None) as folder:
        if folder is None:
            return "absent"
        new = openat2.replace_file(folder, name, text, owner=container_owner(user), mode=0o600)
    return "written" if new else "unchanged"


def _file(user: User, place: str, keys: Sequence[PublicKey]) -> tuple[tuple[int, int], int, str]:
    """Owner, mode and text."""
    if place == HOST:
        return _HOST_OWNER, 0o644, render_host(keys)
    return container_owner(user), 0o600, render_container(keys)


@contextmanager
def _folder(host: Host, user: User, place: str, known: linux_accounts.Known) -> Iterator[int | None]:
    if place == CONTAINER and user.registered and not user.needs_provisioning:  # provisioning writes the keys
        with _container_folder(host, user, known) as folder:
            yield folder
        return
    if place == CONTAINER or linux_accounts.passwd_entry(host, user, known) is None:
        yield None
        return
    with _host_folder(host, user.name) as folder:
        yield folder


@contextmanager
def _host_folder(host: Host, name: str) -> Iterator[int]:
    # Root's own tree. The home may be a file system of its own, so mount points are allowed here.
    allowed = openat2.BENEATH | openat2.NO_SYMLINKS | openat2.NO_MAGICLINKS
    with openat2.directory(host.paths.home) as home, openat2.subdirectory(home, f"{name}/.ssh", allowed) as folder:
        if os.fstat(folder).st_uid != os.geteuid():
            text = f"{name}/.ssh does not belong to root; register {name} again"
            raise LabhostError(text, reason="ssh_folder_owner", name=name)
        yield folder


@contextmanager
def _container_folder(host: Host, user: User, known: linux_accounts.Known) -> Iterator[int | None]:
    """~/.ssh in the container, made if it is missing; None if there is no root file system."""
    driver = drivers.driver_of(host, user)
    if not driver.exists(user):
        yield None
        return
    driver.attach(user, linux_accounts.account_of(host, user, known))
    with openat2.directory(driver.rootfs(user)) as root, openat2.subdirectory(root, f"home/{user.name}") as home:
        openat2.make_directory(home, ".ssh", owner=container_owner(user), mode=0o700)
        with openat2.subdirectory(home, ".ssh") as folder:
            yield folder


def container_owner(user: User) -> tuple[int, int]:
    return (user.subuid + user.container_uid, user.subuid + user.container_gid)
