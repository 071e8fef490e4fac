"""`labhost nvidia [VERSION]`: the driver versions of the server and the containers, and what an upgrade changes."""

import re
from typing import NamedTuple

from labhost.container import lifecycle
from labhost.errors import BadRequest
from labhost.gpu import nvidia
from labhost.host import Host, config, user_state
from labhost.protocol.verbs import for_people
from labhost.system import Progress, formatting

VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){1,3}", re.ASCII)


class Row(NamedTuple):
    name: str
    version: str
    running: bool


@for_people(0, 1)
def main(arguments: list[str], progress: Progress) -> None:
    """For staff. With VERSION: what an upgrade to it would change; nothing is changed here."""
    if arguments and not VERSION.fullmatch(arguments[0]):
        raise BadRequest("VERSION must look like 550.54.14", reason="bad_version")
    host = config.load()
    version, bind = nvidia.host_version(host.config), host.config.driver.mode == "bind"
    people = [user for user in user_state.all_users(host) if user.registered]
    found = [Row(user.name, nvidia.container_version(host, user), lifecycle.is_running(host, user)) for user in people]
    progress.write(f"{host.config.server.name}: driver {version or 'none'}, mode {host.config.driver.mode}")
    rows = [(item.name, "running" if item.running else "stopped", _driver(item, version, bind)) for item in found]
    for line in formatting.table(("person", "container", "driver"), rows) if rows else ["no containers"]:
        progress.write(line)
    _upgrade(host, arguments[0] if arguments else version, found, progress)


def _driver(item: Row, version: str, bind: bool) -> str:
    if bind:
        return "the server's"
    return item.version + (" (the server's)" if item.version == version else "") if item.version else "none"


def _upgrade(host: Host, version: str, found: list[Row], progress: Progress) -> None:
    if not version:
        progress.write("next: install the server's driver; containers follow at their next start")
        return
    running = [item.name for item in found if item.running]
    if host.config.driver.mode == "bind":
        progress.write(f"{version}: {_count(running)} must restart to use it: {_names(running)}")
        return
    differing = [item.name for item in found if item.version != version]
    progress.write(f"{version}: {_count(differing)} to update at the next start: {_names(differing)}")
    restart = [name for name in differing if name in running]
    progress.write(f"running now, to restart after the upgrade: {_names(restart)}")
    installer = nvidia.installer_of(host.config, version)
    if not installer.is_file():
        progress.write(f"warning: {installer} is missing; without it no container is updated")


def _count(names: list[str]) -> str:
    return f"{len(names)} container{'' if len(names) == 1 else 's'}"


def _names(names: list[str]) -> str:
    return ", ".join(names) or "-"
