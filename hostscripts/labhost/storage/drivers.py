"""The storage drivers. A container keeps the driver that made it.

`dir` unpacks the template for each person; `overlay` puts a layer of the person's over one unpacked template.
"""

from collections.abc import Mapping

from labhost.host import Host, User
from labhost.storage.directory import DirectoryStorage
from labhost.storage.driver import Storage
from labhost.storage.overlay import OverlayStorage

DRIVERS: Mapping[str, type[Storage]] = {"dir": DirectoryStorage, "overlay": OverlayStorage}


def driver_of(host: Host, user: User) -> Storage:
    """The driver that made the person's container, or would make it now.

    If the state file does not name it (it was recreated after damage), what is on the disk decides.
    """
    found = (name for name in ("overlay", "dir") if DRIVERS[name](host).exists(user))
    return DRIVERS[user.storage or next(found, host.config.container.storage)](host)
