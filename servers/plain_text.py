"""Plain-text pages for servers and scripts. Every error is one line of text, never an HTML page."""

import functools
import logging
from collections.abc import Callable
from typing import Concatenate, ParamSpec

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from accounts import names
from accounts.models import User
from servers import read_access
from servers.models import Server
from servers.services.containers import limits as limits_service
from servers.services.status import overview

log = logging.getLogger(__name__)
P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]


class _Refusal(Exception):
    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


def _plain(text: str, status: int = 200) -> HttpResponse:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return HttpResponse(text, "text/plain; charset=utf-8", status, headers=headers)


def _page(make: Callable[Concatenate[HttpRequest, P], str]) -> View[P]:
    """A view of a function that returns the text or raises _Refusal. A database fault is a 503, never an empty 200."""

    @require_safe
    @functools.wraps(make)
    def view(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        try:
            return _plain(make(request, *args, **kwargs))
        except _Refusal as refusal:
            return _plain(f"{refusal}\n", refusal.status)
        except DatabaseError:
            log.exception("The database is unavailable.")
            return _plain("Unavailable: the portal's database does not answer. Try again later.\n", 503)

    return view


def _person(request: HttpRequest, name: str) -> User:
    try:
        name = names.clean(name)
        known = read_access.may_read(request, name)
    except names.NameRefused:
        name, known = "", read_access.may_read_all(request)  # matches nobody; PostgreSQL refuses some characters
    if not known:
        raise _Refusal(403, "Not allowed: sign in as this person, or send a server's token.")
    people = User.objects.select_related("port", "subuids")
    person = people.filter(username=name, is_active=True).first()
    if person is None:
        raise _Refusal(404, "Not found: the portal has no active person with this name.")
    return person


@_page
def port(request: HttpRequest, name: str) -> str:
    return f"{_numbers(_person(request, name))[0]}\n"


@_page
def subuid(request: HttpRequest, name: str) -> str:
    return f"{_numbers(_person(request, name))[1]}\n"


@_page
def full_name(request: HttpRequest, name: str) -> str:
    return f"{_person(request, name).get_full_name()}\n"


@_page
def authorized_keys(request: HttpRequest, name: str) -> str:
    person = _person(request, name)
    return "".join(f"{key.public_key.line}\n" for key in overview.active_keys(person))


@_page
def ssh_config(request: HttpRequest, name: str) -> str:
    person = _person(request, name)
    return overview.ssh_config_of(person, _numbers(person)[0])


@_page
def limits(request: HttpRequest, name: str) -> str:
    """The limits of this person's container on the server `?server=NAME`, as `key=value` lines."""
    person = _person(request, name)
    server = Server.objects.in_service().filter(name=request.GET.get("server", "")).first()
    if server is None:
        raise _Refusal(404, "Not found: no server with this name is in service. Add ?server=NAME.")
    return limits_service.text(limits_service.of(person, server))


@_page
def users(request: HttpRequest) -> str:
    if not read_access.may_read_all(request):
        raise _Refusal(403, "Not allowed: sign in as staff, or send a server's token.")
    people = User.objects.active().filter(port__isnull=False).order_by("username")
    return "".join(f"{name}\n" for name in people.values_list("username", flat=True))


def _numbers(person: User) -> tuple[int, int]:
    if not hasattr(person, "port") or not hasattr(person, "subuids"):
        raise _Refusal(404, "Not found: this person gets a port and subordinate ids at the first sign-in.")
    return person.port.number, person.subuids.start
