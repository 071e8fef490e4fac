"""`labhost revoke`: take keys away on this server while the portal does not answer."""

from labhost.host import config
from labhost.keys import revoked
from labhost.people import revocation
from labhost.protocol.verbs import WrongUse, for_people
from labhost.system import Progress, formatting


@for_people(1, 2)
def revoke(arguments: list[str], progress: Progress) -> int | None:
    """A person's name or the fingerprint of a key; `--undo` before it; or `--list` alone."""
    if arguments == ["--list"]:
        for row in revoked.load(config.load()):
            progress.write(f"{row.name} {row.fingerprint}, {formatting.moment(row.at)}")
        return None
    is_undo, target = arguments[0] == "--undo", arguments[-1]
    if target.startswith("-") or (len(arguments) == 2) != is_undo:
        raise WrongUse
    host = config.load()
    changed = revocation.undo(host, target) if is_undo else revocation.revoke(host, target, progress)
    for name, fingerprint in changed.keys:
        progress.write(f"{'given back' if is_undo else 'revoked'}: {name} {fingerprint}")
    for problem in changed.problems:
        progress.error(problem)
    if not is_undo and not changed.problems:
        progress.write("sessions on this server were ended; the portal removes these keys everywhere when it is back")
        progress.write("what runs in a container goes on; to end it: labhost stop NAME")
    return 1 if changed.problems else 0
