"""What to send to a server that holds something else than the portal assumed.

If its revision is in this database, everybody's keys. If not, as after restoring a backup, keys are only taken away,
until staff have seen the differences and let the portal replace exactly that revision (see revisions.py).
"""

from collections.abc import Callable

from accounts.models import SSHKey
from accounts.services import revision
from servers import protocol, push_requests
from servers.models import Server
from servers.protocol import Answer, Message
from servers.services import remote
from servers.services.push import guard, results, revisions
from servers.services.push.guard import People
from servers.services.push.payloads import Payload, Payloads
from servers.services.push.results import Outcome
from servers.ssh.dial import RemoteError

CODES = frozenset({"other_base", "other_history"})
Ask = Callable[[bytes], Answer]


def push(server: Server, payloads: Payloads, refused: Payload, answer: Answer, ask: Ask) -> Outcome:
    """Send what fits after this refusal. Raises RemoteError; HeldBack if it would remove many keys."""
    held, is_adopted = refused.step.previous, False
    if answer.code == "other_history":
        number, held = _revision(answer)
        is_adopted = held == server.state.adopted_id
        if not is_adopted and not revision.knows(number, held):
            return _take_away(server, payloads, held, ask)
        if not is_adopted and number > payloads.revision:
            raise RemoteError("superseded")
    payload = payloads.whole(held)
    if not is_adopted:  # otherwise staff have seen what is removed
        guard.save_snapshot(payloads.revision, payloads.digest, payloads.users)
        guard.check(server, payloads.revision, payloads.digest)
    return results.evaluate(payloads.revision, payloads.digest, ask(payload.request))


def _revision(refusal: Answer) -> tuple[int, str]:
    params = refusal.error.params if refusal.error else {}
    number, value = params.get("revision"), params.get("id")
    if not isinstance(number, int) or not value or not protocol.is_revision_id(value):
        raise RemoteError("bad_answer", detail="it names no revision")
    return number, str(value)


def _take_away(server: Server, payloads: Payloads, held: str, ask: Ask) -> Outcome:
    """Have the server remove keys that it should not hold. If these are many, only those that the portal removed."""
    status = remote.status(server, keys=True)
    if status.id != held:
        raise RemoteError("superseded")
    wanted = revisions.wanted(payloads.revision)
    surplus, error = guard.missing(status.keys, wanted), Message("server_ahead")
    try:
        guard.check_held(server, payloads.revision, status.keys, surplus)
    except guard.HeldBack as held_back:
        surplus, error = _known(surplus), held_back.message
        if guard.is_large(server, status.keys, surplus):
            surplus = {}
    everybody = {name: surplus.get(name, []) for name in wanted.keys() | surplus.keys()}
    answer = ask(protocol.frame(push_requests.build_take_away(held, everybody)))
    return results.taken_away(payloads.revision, payloads.digest, answer, error)


def _known(keys: People) -> dict[str, list[str]]:
    """Those of which the portal has a row, and which it therefore removed itself."""
    every = {one for own in keys.values() for one in own}
    known = set(SSHKey.objects.filter(fingerprint__in=every).values_list("fingerprint", flat=True))
    chosen = {name: [one for one in own if one in known] for name, own in keys.items()}
    return {name: own for name, own in chosen.items() if own}
