"""Asks the lab's directory; the only importer of python-ldap and django-auth-ldap.

OpenLDAP (RFC 4511 simple bind, RFC 4530 entryUUID) and Active Directory. Does not use the database.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import ldap
import ldap.filter
from django.conf import settings
from django_auth_ldap.backend import LDAPBackend, ldap_error
from django_auth_ldap.config import LDAPSearch, LDAPSettings

log = logging.getLogger(__name__)
T = TypeVar("T")

NAMES_PER_SEARCH = 100  # far below the size limits of directories, which truncate answers silently
AT_ONCE = 16

# With these errors the directory refuses a person; any other error is a fault.
REFUSALS = (
    ldap.INVALID_CREDENTIALS,
    ldap.INAPPROPRIATE_AUTH,
    ldap.UNWILLING_TO_PERFORM,
    ldap.CONSTRAINT_VIOLATION,
    ldap.INSUFFICIENT_ACCESS,
)


class DirectoryUnavailable(Exception):
    """The directory did not answer in time, or not as expected. str() is for people, `reason` for staff."""

    def __init__(self, reason: str) -> None:
        super().__init__("Temporary problem: directory unavailable. Try again in a few minutes.")
        self.reason = reason


@dataclass(frozen=True)
class Person:
    """A person's entry in the directory. `is_staff` is None if no staff group is configured."""

    name: str
    directory_id: str
    full_name: str
    is_staff: bool | None = None


def configured() -> bool:
    return bool(settings.LDAP_URL)


def check_password(name: str, password: str) -> Person | None:
    """Return the person if the directory accepts name and password, else None.

    Does one search and one bind, whether the name exists or not. `name` must be clean and `password` not
    blank: a bind without a password always succeeds (RFC 4513 section 5.1.2).
    Raises DirectoryUnavailable within LDAP_TIMEOUT seconds.
    """
    if not password.strip():
        raise ValueError("the password is blank")
    person: Person | None = _in_time(lambda: _PasswordCheck().authenticate(None, name, password))
    return person


def look_up(names: Iterable[str]) -> dict[str, Person]:
    """All people with these user names, by directory id. Raises DirectoryUnavailable rather than return a part."""
    found: dict[str, Person] = {}
    wanted = sorted(names)
    for first in range(0, len(wanted), NAMES_PER_SEARCH):
        batch = wanted[first : first + NAMES_PER_SEARCH]
        people = _in_time(lambda batch=batch: list(_search(batch)))  # type: ignore[misc]
        found |= {person.directory_id: person for person in people}
    return found


class _PasswordCheck(LDAPBackend):
    """django-auth-ldap's search and bind, returning a Person instead of a database row."""

    def __init__(self) -> None:
        self.settings = LDAPSettings("LAB_IAM_LDAP_", _library_settings())

    def authenticate_ldap_user(self, ldap_user: Any, password: str) -> Any:
        if ldap_user.dn is None:
            _bind_as_nobody(ldap_user.connection)
            return None
        return super().authenticate_ldap_user(ldap_user, password)

    def get_or_build_user(self, username: str, ldap_user: Any) -> tuple[_Accepted, bool]:
        # False: not built, so the library does not save it.
        return _Accepted(username, ldap_user), False

    def authenticate(
        self, request: Any, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> Any:
        accepted = super().authenticate(request, username, password, **kwargs)
        if accepted is None:
            return None
        accepted.ldap_user = None  # breaks a reference cycle that would keep the connection open
        return accepted.person


class _Accepted:
    """Used as the library's user object; the library may set attributes on it."""

    def __init__(self, name: str, ldap_user: Any) -> None:
        self.person = _person(name, ldap_user.attrs)
        if self.person is not None and settings.LDAP_STAFF_GROUP:
            try:
                is_staff = _is_staff(ldap_user.connection, ldap_user.dn, name)
            except ldap.LDAPError as error:  # the password was right, so this is a fault
                raise DirectoryUnavailable(f"cannot read the staff group: {_describe(error)}") from None
            self.person = Person(name, self.person.directory_id, self.person.full_name, is_staff)


def _library_settings() -> dict[str, Any]:
    return {
        "SERVER_URI": settings.LDAP_URL,
        "START_TLS": settings.LDAP_START_TLS,
        "CONNECTION_OPTIONS": _options(),
        "BIND_DN": settings.LDAP_BIND_DN,
        "BIND_PASSWORD": settings.LDAP_BIND_PASSWORD,
        "USER_SEARCH": _subtree_search(settings.LDAP_USER_FILTER),
        "ALWAYS_UPDATE_USER": False,
    }


def _subtree_search(condition: str) -> LDAPSearch:
    attributes = [settings.LDAP_LOGIN_ATTR, settings.LDAP_NAME_ATTR, settings.LDAP_ID_ATTR]
    return LDAPSearch(settings.LDAP_USER_BASE, ldap.SCOPE_SUBTREE, condition, attributes)


def _options() -> dict[int, Any]:
    options: dict[int, Any] = {
        ldap.OPT_PROTOCOL_VERSION: ldap.VERSION3,
        ldap.OPT_REFERRALS: 0,  # AD sends referrals; following them would bind anonymously to other servers
        ldap.OPT_NETWORK_TIMEOUT: float(settings.LDAP_TIMEOUT),
        ldap.OPT_TIMEOUT: float(settings.LDAP_TIMEOUT),
        ldap.OPT_X_TLS_REQUIRE_CERT: ldap.OPT_X_TLS_DEMAND,
    }
    if settings.LDAP_CA_FILE:
        options[ldap.OPT_X_TLS_CACERTFILE] = settings.LDAP_CA_FILE
    return options | {ldap.OPT_X_TLS_NEWCTX: 0}  # must be last: it builds the TLS context from the options above


def _person(name: str, attributes: Mapping[str, list[Any]]) -> Person | None:
    """None if the entry belongs to another name: directories compare more loosely than Linux (é is e in AD)."""
    logins = [str(login).lower() for login in attributes.get(settings.LDAP_LOGIN_ATTR, [])]
    if logins and name not in logins:
        log.warning("The directory returned another person's entry for %s: refused.", name)
        return None
    raw = attributes.get(settings.LDAP_ID_ATTR, [])
    if not raw:
        raise DirectoryUnavailable(f"the entry of {name} has no readable {settings.LDAP_ID_ATTR}")
    full_name = str(next(iter(attributes.get(settings.LDAP_NAME_ATTR, [])), ""))
    return Person(name, _identity(raw[0]), " ".join(full_name.split())[:200])


def _identity(raw: str | bytes) -> str:
    """The directory id as text. AD's objectGUID is 16 bytes, which may also happen to be valid UTF-8."""
    if settings.LDAP_ID_ATTR.lower() == "objectguid":
        return str(uuid.UUID(bytes_le=raw.encode() if isinstance(raw, str) else raw))
    return raw if isinstance(raw, str) else raw.hex()


def _is_staff(connection: Any, dn: str, name: str) -> bool:
    group = settings.LDAP_STAFF_GROUP
    escape = ldap.filter.escape_filter_chars
    if settings.LDAP_KIND == "ad":  # nested groups count: LDAP_MATCHING_RULE_IN_CHAIN
        search = LDAPSearch(dn, ldap.SCOPE_BASE, f"(memberOf:1.2.840.113556.1.4.1941:={escape(group)})", ["cn"])
    else:
        members = f"(|(member={escape(dn)})(uniqueMember={escape(dn)})(memberUid={escape(name)}))"
        search = LDAPSearch(group, ldap.SCOPE_BASE, members, ["cn"])
    return bool(search.execute(connection))


def _bind_as_nobody(connection: Any) -> None:
    """Take as long as for a wrong password, so that the time does not reveal which names exist."""
    try:
        connection.simple_bind_s(f"cn={secrets.token_hex(8)},{settings.LDAP_USER_BASE}", secrets.token_hex(16))
    except (*REFUSALS, ldap.NO_SUCH_OBJECT):
        pass
    except ldap.LDAPError as error:
        raise DirectoryUnavailable(_describe(error)) from None


def _search(names: list[str]) -> Iterator[Person]:
    connection = ldap.initialize(settings.LDAP_URL, bytes_mode=False)
    for option, value in _options().items():
        connection.set_option(option, value)
    try:
        if settings.LDAP_START_TLS:
            connection.start_tls_s()
        connection.simple_bind_s(settings.LDAP_BIND_DN, settings.LDAP_BIND_PASSWORD)
        each = "".join(settings.LDAP_USER_FILTER % {"user": ldap.filter.escape_filter_chars(n)} for n in names)
        for _, attributes in _subtree_search(f"(|{each})").execute(connection):
            logins = {str(login).lower() for login in attributes.get(settings.LDAP_LOGIN_ATTR, [])}
            for name in logins.intersection(names):
                if person := _person(name, attributes):
                    yield person
    finally:
        connection.unbind_ext_s()


def _on_library_error(context: str, exception: ldap.LDAPError, **_: Any) -> None:
    """Turn faults into DirectoryUnavailable; django-auth-ldap returns None for them and for a wrong password."""
    if not (context == "authenticate" and isinstance(exception, REFUSALS)):
        raise DirectoryUnavailable(_describe(exception))


ldap_error.connect(_on_library_error, sender=_PasswordCheck)


def _describe(error: ldap.LDAPError) -> str:
    if isinstance(error, ldap.CONNECT_ERROR):  # the library gives no details
        return "CONNECT_ERROR: no TLS; check the certificate, its names and LDAP_CA_FILE"
    detail = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return " ".join(
        str(part) for part in (type(error).__name__, detail.get("desc", ""), detail.get("info", "")) if part
    )


_threads = threading.BoundedSemaphore(AT_ONCE)


def _in_time(work: Callable[[], T]) -> T:
    """Return the result of `work`; raises DirectoryUnavailable after LDAP_TIMEOUT seconds.

    The library only limits each step, and slow steps add up: name resolution, several addresses, late answers.
    A thread that is too late ends by itself; at most AT_ONCE run.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)
        finally:
            _threads.release()

    end = time.monotonic() + settings.LDAP_TIMEOUT
    if not _threads.acquire(timeout=settings.LDAP_TIMEOUT / 2):
        raise _logged(DirectoryUnavailable("too many requests are waiting for the directory"))
    threading.Thread(target=run, name="directory", daemon=True).start()
    try:
        return future.result(max(end - time.monotonic(), 0))
    except TimeoutError:
        raise _logged(DirectoryUnavailable(f"no answer within {settings.LDAP_TIMEOUT} s")) from None
    except ldap.LDAPError as error:
        raise _logged(DirectoryUnavailable(_describe(error))) from None
    except DirectoryUnavailable as error:
        raise _logged(error) from None


def _logged(error: DirectoryUnavailable) -> DirectoryUnavailable:
    log.warning("Directory unavailable: %s", error.reason)
    return error
