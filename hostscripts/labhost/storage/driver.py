"""The interface of the storage drivers, and what they share.

A driver makes a container's root file system and replaces it. The systems of a person lie in slots (slots.py): the
current one, and the previous one until the new one has started well. Everything that walks through a person's files
runs inside their id map; LabhostError says what to do.
"""

from abc import ABC, abstractmethod
from pathlib import Path

from labhost import lxc
from labhost.host import Host, User
from labhost.storage import quota, tree
from labhost.storage.slots import Slots, slots_in
from labhost.system import Account, Process


class Storage(ABC):
    name: str
    slot: str  # the name of a person's current slot

    def __init__(self, host: Host) -> None:
        self._host = host

    def rootfs(self, user: User) -> Path:
        """The root file system as the host sees it, once attached."""
        return self._folder(user) / "rootfs"

    def exists(self, user: User) -> bool:
        """True if the person has a complete system here, attached or not."""
        return self._slots(user).exists() or quota.is_detached(self._host, user.name)

    @abstractmethod
    def check(self) -> None:
        """LabhostError if `create` cannot succeed now: template missing or damaged, disk full."""

    def create(self, user: User, account: Account) -> None:
        """Makes the system from the current template unless there is one, and attaches it. All or nothing."""
        if not self.exists(user):
            quota.make_folder(self._host, user)
            self.remove_leftovers(user, account)
            self._slots(user).install(self.create_fresh(user, account))
        self.attach(user, account)

    @abstractmethod
    def attach(self, user: User, account: Account) -> None:
        """Makes the current system reachable at `rootfs`, and repairs what a killed run left. Safe to repeat."""

    @abstractmethod
    def detach(self, user: User, account: Account) -> None:
        """Undoes `attach`. The container must be stopped."""

    @abstractmethod
    def create_fresh(self, user: User, account: Account) -> Path:
        """A complete system from the current template, beside the current one: for `install`, else a leftover."""

    @abstractmethod
    def unpack(self, user: User, account: Account, archive: tree.Archive, template: str) -> Path:
        """Like `create_fresh`, from the tar that `archive` wrote, over the template of that version."""

    @abstractmethod
    def install(self, user: User, account: Account, system: Path) -> None:
        """Makes `system` the current one, attached; the one before becomes the previous one.

        The container must be stopped, and `needs_provisioning` saved, so that no push writes into either system.
        """

    def commit(self, user: User, account: Account) -> None:
        """The current system has started well: removes the previous one."""
        self._slots(user).discard_previous()
        self.remove_leftovers(user, account)

    @abstractmethod
    def roll_back(self, user: User, account: Account) -> bool:
        """Makes the previous system the current one again; False if there is none. The container must be stopped."""

    @abstractmethod
    def version(self, user: User) -> str:
        """The template that the current system needs; empty if it needs none."""

    def size(self, user: User, account: Account) -> int:
        """Bytes on the disk that are the person's alone."""
        return tree.size(user.subuid, self._own_files(user))

    def disk_usage(self, user: User) -> quota.Usage | None:
        """What the kernel counts for the person; None if nothing counts it."""
        return quota.usage(self._host, user, self._slots(user).current)

    def disk_limit_enforced(self, user: User) -> bool:
        return quota.is_enforced(self._host, user, self._slots(user).current)

    def disk_limit_obstacle(self, user: User) -> str:
        """Why the limit of this container cannot be enforced; empty if it can."""
        return quota.obstacle(self._host, user, self._slots(user).current)

    def archive(self, user: User, account: Account) -> Process:
        """A process that writes the person's own files as a plain tar to its stdout, see tree.archive."""
        return tree.archive(user.subuid, self._own_files(user))

    def remove(self, user: User, account: Account) -> None:
        """Removes all systems of the person. The container must be stopped."""
        self.detach(user, account)
        for path in self._slots(user).all():
            self._remove(user, account, path)
        self.release(user)

    def release(self, user: User) -> None:
        """Ends the limit and unmounts an image, before the person's folder is moved away or deleted; OSError."""
        quota.release(self._host, user)

    def remove_leftovers(self, user: User, account: Account) -> None:
        """Removes what killed or failed runs left beside the systems."""
        for path in self._slots(user).leftovers():
            self._remove(user, account, path)

    @abstractmethod
    def _own_files(self, user: User) -> Path: ...

    @abstractmethod
    def _remove(self, user: User, account: Account, system: Path) -> None: ...

    def _folder(self, user: User) -> Path:
        return lxc.container_folder(self._host, user.name)

    def _slots(self, user: User) -> Slots:
        return slots_in(self._folder(user), self.slot)
