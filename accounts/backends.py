"""How Django asks whether a name and a password belong together."""

from typing import Any

from django.contrib.auth import authenticate
from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from accounts import directory, lockout, names
from accounts.models import User
from accounts.services import people


class DirectoryBackend(ModelBackend):
    """Asks the lab's directory. Permissions and the session's user come from the database as usual.

    A fault of the directory is left on the request and the next backend is tried, so that a local account of
    the staff still opens the door; `check_password` raises it when that was in vain.
    """

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        if not username or not password or not password.strip() or not directory.configured():
            return None
        try:
            name = names.clean(username)
            person = directory.check_password(name, password)
        except names.NameRefused:
            return None
        except directory.DirectoryUnavailable as fault:
            if request is None:
                raise
            setattr(request, lockout.FAULT, fault)
            return None
        return people.admit(person) if person is not None else None


def check_password(request: HttpRequest, name: str, password: str) -> User | None:
    """The person, or None if name and password do not belong together or too many wrong ones came before.

    Raises directory.DirectoryUnavailable, and people.PersonRefused for one who may not enter although the
    password is right.
    """
    try:
        name = names.clean(name)
    except names.NameRefused:
        return None  # nobody is called so, neither in the directory nor here
    user = authenticate(request, username=name, password=password)
    if isinstance(user, User):
        lockout.forget(request, name)
        return user
    fault = getattr(request, lockout.FAULT, None)
    if fault is not None and not getattr(request, "axes_locked_out", False):
        raise fault
    return None
