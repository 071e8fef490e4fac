"""The portal's requests: status, register, remove and suspend. Each is one JSON object, and so is its answer.

set-keys is a session of its own, see protocol/session.py. Standard error carries the progress.
"""

import sys
from typing import Any

from labhost import __version__
from labhost.errors import BadRequest
from labhost.host import Host, config
from labhost.protocol.frame import require
from labhost.protocol.verbs import for_portal
from labhost.system import Progress, check_name

JSON = ["--json"]
REVISION_MOST = 2**53


def describe(host: Host, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to `status`, with fingerprints if the request has `keys`.

    The digest is empty while the last push is not completely written.
    """
    from labhost.gpu import nvidia
    from labhost.host import disk_space
    from labhost.keys import applied_keys, revoked
    from labhost.storage.inventory import inventory
    from labhost.system.build import build_digest

    applied = applied_keys.load(host)
    return {
        "ok": True,
        "labhost": __version__,
        "build": build_digest(),
        "name": host.config.server.name,
        "revision": applied.revision,
        "id": applied.id,
        "digest": applied.digest if applied.complete else "",
        "revoked": revoked.as_answer(host),
        "driver": nvidia.host_version(host.config),
        "storage": host.config.container.storage,
        "containers": inventory(host),
        "disks": {name: space._asdict() for name, space in disk_space.local(host).items()},
        **({"keys": applied.users.fingerprints()} if request.get("keys") is True else {}),
    }


def _register(request: dict[str, Any]) -> dict[str, Any]:
    from labhost.people import registration

    (name,) = require(request, user=str)
    user, created = registration.register(config.load(), check_name(name), Progress(sys.stderr))
    return _answer(user.name, created=created, port=user.port, address=user.address)


def _remove(request: dict[str, Any]) -> dict[str, Any]:
    """Safe to repeat: a person who is gone already gets the same answer."""
    from labhost.people import removal

    name, purge = require(request, user=str, purge=bool)
    removed = removal.remove(config.load(), check_name(name), Progress(sys.stderr), purge=purge)
    return _answer(name, kept=removed.kept_folders)


def _suspend(request: dict[str, Any]) -> dict[str, Any]:
    from labhost.people import suspension

    revision = request.pop("revision", 0)  # a portal of an older version does not send it
    (name,) = require(request, user=str)
    if type(revision) is not int or not 0 <= revision <= REVISION_MOST:
        raise BadRequest("the field 'revision' of the request is not valid", reason="field_invalid", field="revision")
    suspension.suspend(config.load(), check_name(name), Progress(sys.stderr), revision)
    return _answer(name)


def _answer(name: str, **values: Any) -> dict[str, Any]:
    return {"ok": True, "user": name, **values}


status = for_portal([], lambda request: describe(config.load(), request))
register, remove, suspend = (for_portal(JSON, work) for work in (_register, _remove, _suspend))
