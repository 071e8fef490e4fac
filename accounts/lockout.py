"""What django-axes asks us: whose failure it is, whether it counts, and what the locked-out person reads."""

from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from accounts import names
from accounts.models import User
from lab_iam.network import client_address

FAULT = "directory_fault"  # the attribute of a request that found the directory unavailable
LINE = "Too many wrong passwords: wait 15 minutes and try again, or ask the staff of the lab."


def name_for_counting(request: HttpRequest, credentials: dict[str, Any] | None) -> str:
    """`ALICE` counts as `alice`; what is no name (perhaps a password in the wrong field) is not stored."""
    try:
        return names.clean(str((credentials or {}).get("username") or ""))
    except names.NameRefused:
        return "(not a name)"


def not_counted(request: HttpRequest, credentials: dict[str, Any] | None) -> bool:
    """While the directory is down nobody's password was wrong, except that of a local account.

    Local accounts go on counting: otherwise an outage would be the time to guess their passwords.
    """
    if not hasattr(request, FAULT):
        return False
    name = name_for_counting(request, credentials)
    return not User.objects.filter(username=name, directory_id__isnull=True).exists()


def answer(request: HttpRequest, response: HttpResponse, credentials: dict[str, Any] | None) -> HttpResponse:
    return render(request, "accounts/locked_out.html", {"line": LINE}, status=429)


def forget(request: HttpRequest, name: str) -> None:
    """The right password ends the counting of this person's own mistakes, and of nobody else's."""
    AxesProxyHandler.reset_attempts(username=name, ip_address=client_address(request))
