"""The portal's requests: status, register, remove and suspend. Each is one JSON object, and so is its answer.

set-keys is a session of its own, see protocol/session.py. Standard error carries the progress.
"""

import sys
from typing import Any

from labhost import __version__
from labhost.errors import BadRequest
from labhost.host import config
from labhost.host.config import Host
from labhost.protocol.verbs import WrongUse, answer_portal
from labhost.system.names import check_name
from labhost.system.progress import Progress

JSON = ["--json"]


def status(arguments: list[str]) -> int:
    if arguments:
        raise WrongUse
    return answer_portal(lambda _: describe(config.load()))


def suspend(arguments: list[str]) -> int:
    if arguments != JSON:
        raise WrongUse
    return answer_portal(_suspend)


def register() -> int:
    return answer_portal(_register)


def remove() -> int:
    return answer_portal(_remove)


def describe(host: Host) -> dict[str, Any]:
    """The answer to `status`. The digest is empty while the last push is not completely written."""
    from labhost.gpu import nvidia
    from labhost.keys import applied_keys
    from labhost.storage.inventory import inventory

    applied = applied_keys.load(host)
    return {
        "version": 1,
        "ok": True,
        "labhost": __version__,
        "name": host.config.server.name,
        "revision": applied.revision,
        "digest": applied.digest if applied.complete else "",
        "driver": nvidia.host_version(host.config),
        "storage": host.config.container.storage,
        "containers": inventory(host),
    }


def _register(request: dict[str, Any]) -> dict[str, Any]:
    from labhost.people import registration

    _check_fields(request, "user")
    done = registration.register(config.load(), check_name(request["user"]), Progress(sys.stderr))
    user = done.user
    return _answer(user.name, created=done.created, port=user.port, address=user.address)


def _remove(request: dict[str, Any]) -> dict[str, Any]:
    """Safe to repeat: a person who is gone already gets the same answer."""
    from labhost.people import removal

    _check_fields(request, "user", "purge")
    if not isinstance(request["purge"], bool):
        raise BadRequest("purge must be true or false", reason="field_invalid", field="purge")
    name = check_name(request["user"])
    removed = removal.remove(config.load(), name, Progress(sys.stderr), purge=request["purge"])
    return _answer(name, kept=removed.kept_folders)


def _suspend(request: dict[str, Any]) -> dict[str, Any]:
    from labhost.people import suspension

    _check_fields(request, "user")
    name = check_name(request["user"])
    suspension.suspend(config.load(), name, Progress(sys.stderr))
    return _answer(name)


def _check_fields(request: dict[str, Any], *fields: str) -> None:
    """BadRequest if one of them is missing. Fields that this version does not know are ignored."""
    for field in fields:
        if field not in request:
            raise BadRequest(f"the request lacks the field {field}", reason="field_invalid", field=field)


def _answer(name: str, **values: Any) -> dict[str, Any]:
    return {"version": 1, "ok": True, "user": name, **values}
