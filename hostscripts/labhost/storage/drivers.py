"""Where a container's root file system comes from. A container keeps the driver with which it was made.

`dir` unpacks the template for each person; `overlay` puts a layer of hers over one unpacked template. Each
person's systems lie in slots (slots.py): the current one, and the one before until the new has started well.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Protocol

from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.storage.directory import DirectoryStorage
from labhost.storage.overlay import OverlayStorage
from labhost.system.processes import Account, Process


class Storage(Protocol):
    """All that walks through a person's files runs inside her id map; LabhostError says what to do."""

    name: str

    def rootfs(self, user: User) -> Path:
        """The root file system as the host sees it, once attached."""

    def exists(self, user: User) -> bool:
        """True if the person has a whole system here, attached or not."""

    def check(self) -> None:
        """LabhostError if `create` cannot succeed now: template missing or damaged, disk low."""

    def create(self, user: User, account: Account) -> None:
        """Makes the system from the current template, whole or not at all; nothing if there is one. Attached."""

    def attach(self, user: User, account: Account) -> None:
        """Makes the current system reachable at `rootfs`; heals what a kill left. Safe to repeat at any time."""

    def detach(self, user: User, account: Account) -> None:
        """The opposite. The container must be stopped."""

    def fresh(self, user: User, account: Account) -> Path:
        """A whole system from the current template, beside the current one: for `put`, or it is a leftover."""

    def unpack(self, user: User, account: Account, stream: IO[bytes], template: str) -> Path:
        """The same out of the tar that `archive` wrote, over the template of that version."""

    def put(self, user: User, account: Account, system: Path) -> None:
        """It takes the place of the current system, which is set aside. Attached.

        The container must be stopped, and `user.unfinished` saved: so no push writes into either system.
        """

    def settle(self, user: User, account: Account) -> None:
        """The current system has started well: what was set aside is removed."""

    def revert(self, user: User, account: Account) -> bool:
        """What was set aside is the current system again; False if there is nothing. The container is stopped."""

    def version(self, user: User) -> str:
        """The template on which the current system stands; empty if it stands by itself."""

    def size(self, user: User, account: Account) -> int:
        """Bytes on the disk that are the person's alone."""

    def archive(self, user: User, account: Account) -> Process:
        """A process that writes what is the person's alone as a plain tar on its stdout."""

    def remove(self, user: User, account: Account) -> None:
        """Removes everything of hers, what was set aside as well. The container must be stopped."""

    def remove_leftovers(self, user: User, account: Account) -> None:
        """Removes what killed or failed runs left beside the systems."""


DRIVERS: Mapping[str, Callable[[Host], Storage]] = {"dir": DirectoryStorage, "overlay": OverlayStorage}


def driver_of(host: Host, user: User) -> Storage:
    """The driver with which the person's container was made, or would be made now.

    A journal that was made anew does not say it: then what lies there does.
    """
    found = (name for name in ("overlay", "dir") if DRIVERS[name](host).exists(user))
    return DRIVERS[user.storage or next(found, host.config.container.storage)](host)
