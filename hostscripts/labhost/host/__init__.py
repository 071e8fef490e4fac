"""This server: its configuration, its locks, and what it knows of each user."""

from labhost.host.config import SUBUID_COUNT, Config, Host, Mount, Paths
from labhost.host.user_state import User

__all__ = ["SUBUID_COUNT", "Config", "Host", "Mount", "Paths", "User"]
