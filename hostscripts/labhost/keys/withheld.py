"""Keys that are pushed but belong into no file: of suspended people, and those that staff revoked by hand here."""

from collections.abc import Collection
from dataclasses import dataclass

from labhost.accounts import linux_accounts
from labhost.errors import LabhostError
from labhost.host import Host, locks, suspensions, user_state
from labhost.keys import applied_keys, revoked
from labhost.keys.applied_keys import Applied
from labhost.keys.public_keys import KeyMap, Keys
from labhost.system import log


@dataclass(frozen=True)
class Withheld:
    """`returning`: people who were suspended before the portal gave them keys again."""

    suspended: frozenset[str] = frozenset()
    returning: frozenset[str] = frozenset()
    fingerprints: frozenset[str] = frozenset()

    def rest(self, name: str, keys: Keys) -> Keys:
        """The keys of a person that may be in a file."""
        return () if name in self.suspended else self._unrevoked(keys)

    def rest_of_all(self, users: KeyMap) -> KeyMap:
        """For `register`, which itself refuses people who are suspended."""
        if not self.fingerprints:
            return users
        rest = {name: self._unrevoked(keys) for name, keys in users.items()}
        return users.with_changes({name: keys for name, keys in rest.items() if keys != users[name]})

    def _unrevoked(self, keys: Keys) -> Keys:
        return tuple(key for key in keys if key.fingerprint not in self.fingerprints) if self.fingerprints else keys


def load(host: Host, applied: Applied, acknowledged: Collection[str] = ()) -> Withheld:
    """What to withhold of this state of the keys. The portal has dealt with the fingerprints in `acknowledged`."""
    fingerprints = frozenset(row.fingerprint for row in revoked.load(host)).difference(acknowledged)
    marks = suspensions.load_all(host)
    free = Withheld(fingerprints=fingerprints)
    later = [name for name, at in marks.items() if applied.revision > at]
    returning = frozenset(name for name in later if free.rest(name, applied.users.get(name, ())))
    return Withheld(frozenset(marks.keys() - returning), returning, fingerprints)


def release(host: Host, withheld: Withheld, failed: Collection[str] = ()) -> None:
    """End the suspension of people who return, unless their key files could not be written.

    The login shell comes first: until the mark is gone, each push and each minute's reconcile does it again.
    """
    for name in sorted(withheld.returning.difference(failed)):
        try:
            with locks.accounts(host):
                user = user_state.load_user(host, name)
                if user is not None and user.registered:
                    linux_accounts.set_login_shell(host, user, str(host.paths.login_shell))
            suspensions.release(host, name)
            log.write(f"{name}: the suspension has ended")
        except (LabhostError, OSError) as error:
            log.write(f"{name}: the login shell is not given back yet: {error}", warning=True)


def release_due(host: Host) -> None:
    """The same for what an interrupted push left. Never raises: this is no reason not to go on."""
    try:
        if suspensions.load_all(host) and load(host, applied_keys.load(host)).returning:
            with locks.keys(host):
                applied = applied_keys.load(host)
                if applied.complete:
                    release(host, load(host, applied), applied.failed)
    except (LabhostError, OSError) as error:
        log.write(f"suspensions that are over are not ended yet: {error}", warning=True)
