"""Servers, containers, pushes and what servers have confirmed."""

from servers.models.pushes import Confirmation, KeySet, Placement, Removal
from servers.models.servers import Container, Limits, Registration, Server, Sync, Worker

__all__ = [
    "Confirmation",
    "Container",
    "KeySet",
    "Limits",
    "Placement",
    "Registration",
    "Removal",
    "Server",
    "Sync",
    "Worker",
]
