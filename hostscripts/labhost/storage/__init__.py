"""Where a container's root file system comes from: one driver a way, chosen by host.conf."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from ..config import Host
from ..run import Account
from ..state import User
from .directory import DirectoryStorage


class Storage(Protocol):
    def rootfs(self, user: User) -> Path:
        """The root file system as the host sees it."""

    def create(self, user: User, account: Account) -> None:
        """Makes the root file system from the template, whole or not at all; LabhostError."""

    def remove_leftovers(self, user: User, account: Account) -> None:
        """Removes what killed or failed clones left."""


DRIVERS: Mapping[str, Callable[[Host], Storage]] = {"dir": DirectoryStorage}


def driver(host: Host) -> Storage:
    return DRIVERS[host.config.storage](host)
