"""Plain text, as servers and people's scripts `curl` it. One clear line on every refusal, never a page."""

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
    """A view of a function that gives the text or raises _Refusal; any fault is a 503, never an empty 200."""

    @require_safe
    @functools.wraps(make)
    def view(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        try:
            return _plain(make(request, *args, **kwargs))
        except _Refusal as refusal:
            return _plain(f"{refusal}\n", refusal.status)
        except DatabaseError:
            log.exception("The database did not answer.")
            return _plain("Not possible now: the portal's database does not answer. Try again.\n", 503)

    return view


def _person(request: HttpRequest, name: str) -> User:
    try:
        name = names.clean(name)
        known = read_access.may_read(request, name)
    except names.NameRefused:
        name, known = "", read_access.may_read_all(request)  # nobody's, and no text that PostgreSQL would not take
    if not known:
        raise _Refusal(403, "Not allowed: sign in as this person, or ask from a server of the lab.")
    people = User.objects.select_related("port", "subuids")
    person = people.filter(username=name, is_active=True).first()
    if person is None:
        raise _Refusal(404, "Unknown: the portal has no active person of this name.")
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
    """What the container of this person on the server `?server=NAME` may use, as `key=value` lines."""
    person = _person(request, name)
    server = Server.objects.filter(name=request.GET.get("server", ""), enabled=True).first()
    if server is None:
        raise _Refusal(404, "Unknown: the portal has no server of this name in service; add ?server=NAME.")
    return limits_service.text(limits_service.of(person, server))


@_page
def users(request: HttpRequest) -> str:
    if not read_access.may_read_all(request):
        raise _Refusal(403, "Not allowed: ask from a server of the lab, or sign in as staff.")
    people = User.objects.filter(is_active=True, port__isnull=False).order_by("username")
    return "".join(f"{name}\n" for name in people.values_list("username", flat=True))


def _numbers(person: User) -> tuple[int, int]:
    if not hasattr(person, "port") or not hasattr(person, "subuids"):
        raise _Refusal(404, "Not yet: this person gets a port and subordinate ids at the first sign-in.")
    return person.port.number, person.subuids.start
