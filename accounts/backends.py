"""Check a user name and password, with the directory or with a local account."""

from typing import Any

from django.contrib.auth import authenticate
from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from accounts import directory, lockout, names
from accounts.models import User
from accounts.services import people


class DirectoryBackend(ModelBackend):
    """Checks passwords with the lab's directory; sessions and permissions are Django's.

    If the directory is unavailable, the fault is stored on the request and the next backend is tried, so that
    local staff accounts still work; `check_password` raises the fault if no backend succeeds.
    """

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
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
    """The person; None if name or password is wrong. Raises directory.DirectoryUnavailable or people.PersonRefused."""
    try:
        name = names.clean(name)
    except names.NameRefused:
        return None  # no account can have this name
    user = authenticate(request, username=name, password=password)
    if isinstance(user, User):
        lockout.forget(request, name)
        return user
    fault = getattr(request, lockout.FAULT, None)
    if fault is not None and not getattr(request, "axes_locked_out", False):
        raise fault
    return None
