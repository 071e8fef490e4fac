from servers.models.delivered import Confirmation, KeySet, Placement, Removal
from servers.models.machines import Container, Limits, Registration, Server, Sync, Worker

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
