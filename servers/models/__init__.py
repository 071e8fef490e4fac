"""Servers, containers, pushes and what servers have confirmed."""

from servers.models.pushes import Confirmation, HeldBackPush, KeySnapshot, Placement
from servers.models.servers import Container, ContainerJob, Limits, Push, Server, Worker

__all__ = [
    "Confirmation",
    "Container",
    "ContainerJob",
    "HeldBackPush",
    "KeySnapshot",
    "Limits",
    "Placement",
    "Push",
    "Server",
    "Worker",
]
