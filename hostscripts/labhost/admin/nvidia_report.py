"""`labhost nvidia [VERSION]`: the server's driver, each container's, and what another version would touch."""

import platform
import re
from dataclasses import dataclass

from labhost.container import lifecycle
from labhost.errors import BadRequest
from labhost.gpu import nvidia
from labhost.host import user_state
from labhost.host.config import Host
from labhost.system import formatting
from labhost.system.progress import Progress

VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){1,3}", re.ASCII)


@dataclass(frozen=True)
class Inside:
    name: str
    version: str
    running: bool


def show(host: Host, words: list[str], progress: Progress) -> None:
    """Staff's view. With VERSION: what the upgrade to it would mean, before anything is done."""
    if len(words) > 1 or (words and not VERSION.fullmatch(words[0])):
        raise BadRequest("say labhost nvidia, or labhost nvidia VERSION such as 550.54.14")
    version, bind = nvidia.host_version(host.config), host.config.driver.mode == "bind"
    found = [_inside(host, user) for user in user_state.all_users(host) if user.registered]
    progress.write(f"{host.config.server.name}: driver {version or 'none'}, mode {host.config.driver.mode}")
    rows = [(item.name, "running" if item.running else "stopped", _words(item, version, bind)) for item in found]
    for line in formatting.table(("person", "container", "driver inside"), rows) if rows else ["no containers"]:
        progress.write(line)
    _upgrade(host, words[0] if words else version, found, progress)


def _inside(host: Host, user: user_state.User) -> Inside:
    return Inside(user.name, nvidia.container_version(host, user), lifecycle.is_running(host, user))


def _words(item: Inside, version: str, bind: bool) -> str:
    if bind:
        return "the server's"
    return item.version + (" (the server's)" if item.version == version else "") if item.version else "none"


def _upgrade(host: Host, version: str, found: list[Inside], progress: Progress) -> None:
    if not version:
        progress.write("now: install the server's driver; containers follow at their next start")
        return
    running = [item.name for item in found if item.running]
    if host.config.driver.mode == "bind":
        progress.write(f"{version}: {_count(running)} must restart to see it: {_names(running)}")
        return
    differing = [item.name for item in found if item.version != version]
    progress.write(f"{version}: {_count(differing)} get it at their next start: {_names(differing)}")
    progress.write(
        f"of these {_count([name for name in differing if name in running])} run now, and work only after a restart"
    )
    installer = host.config.driver.installers / f"NVIDIA-Linux-{platform.machine()}-{version}.run"
    if not installer.is_file():
        progress.write(f"warning: {installer} is missing; without it nothing is installed inside")


def _count(names: list[str]) -> str:
    return f"{len(names)} container{'' if len(names) == 1 else 's'}"


def _names(names: list[str]) -> str:
    return ", ".join(names) or "-"
