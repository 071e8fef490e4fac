"""The login-shell commands, as login.bash has them."""

from tests.lab.images import REPOSITORY

_LINES = (REPOSITORY / "hostscripts/login.bash").read_text().splitlines()
_NAMES = next(line for line in _LINES if line.startswith("readonly COMMANDS="))
COMMANDS = tuple(_NAMES.partition("=")[2].strip("'").split())  # `help` too
