"""Servers, containers, pushes, and what servers have confirmed."""

from servers.models.containers import Container, ContainerJob, Limits
from servers.models.placements import Confirmation, Placement
from servers.models.pushes import HeldBackPush, KeySnapshot, Push
from servers.models.revocations import HandRevocation
from servers.models.servers import Server, ServerState
from servers.models.worker import Worker

__all__ = [
    "Confirmation",
    "Container",
    "ContainerJob",
    "HandRevocation",
    "HeldBackPush",
    "KeySnapshot",
    "Limits",
    "Placement",
]
__all__ += ["Push", "Server", "ServerState", "Worker"]
