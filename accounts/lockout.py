"""Hooks of django-axes: the name to count a failed sign-in under, what counts, and the locked-out page."""

from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from accounts import names
from accounts.models import User
from lab_iam.network import client_address

FAULT = "directory_fault"  # the attribute of a request that found the directory unavailable
MESSAGE = "Too many failed attempts. Wait 15 minutes and try again, or ask the lab's staff."


def name_for_counting(request: HttpRequest, credentials: dict[str, Any] | None) -> str:
    """`ALICE` counts as `alice`. Invalid names are not stored: one may be a password in the wrong field."""
    try:
        return names.clean(str((credentials or {}).get("username") or ""))
    except names.NameRefused:
        return "(not a name)"


def not_counted(request: HttpRequest, credentials: dict[str, Any] | None) -> bool:
    """Whether a failure does not count, as the directory is down. Local accounts count: nobody may guess meanwhile."""
    if not hasattr(request, FAULT):
        return False
    name = name_for_counting(request, credentials)
    return not User.objects.filter(username=name, directory_id__isnull=True).exists()


def answer(request: HttpRequest, response: HttpResponse, credentials: dict[str, Any] | None) -> HttpResponse:
    return render(request, "accounts/locked_out.html", {"message": MESSAGE}, status=429)


def forget(request: HttpRequest, name: str) -> None:
    """Reset the failed attempts of this person from this address, after a successful sign-in."""
    AxesProxyHandler.reset_attempts(username=name, ip_address=client_address(request))
