"""My page, the push log, tokens and health."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST, require_safe
from knox.models import AuthToken

from accounts.forms import AddKeyForm
from accounts.models import User
from accounts.numbers import SUBUID_COUNT
from accounts.services import keys
from accounts.views import signed_in
from servers import read_access
from servers.services import tokens
from servers.services.fleet import inspection
from servers.services.push import runner
from servers.services.status import backlog, overview
from servers.services.worker import heartbeat


@never_cache
@login_required
@require_safe
def me(request: HttpRequest) -> HttpResponse:
    return _my_page(request, signed_in(request))


@never_cache
@login_required
@require_POST
@sensitive_variables("token")
def add_token(request: HttpRequest) -> HttpResponse:
    user = signed_in(request)
    try:
        token = tokens.create(actor=user.username, user=user)
    except tokens.TokenRefused as refused:
        messages.error(request, str(refused))
        return redirect("me")
    return _my_page(request, user, token)  # no redirect: the token is shown only in this response


@never_cache
@login_required
@require_POST
def remove_token(request: HttpRequest, token_key: str) -> HttpResponse:
    user = signed_in(request)
    if not tokens.revoke(actor=user.username, user=user, token_key=token_key):
        raise Http404("You have no token with this key.")
    messages.success(request, f"Token {token_key}… removed.")
    return redirect("me")


@never_cache
@require_safe
def push_log(request: HttpRequest) -> HttpResponse:
    """The push log of the person signed in, or who has just pasted a key in this browser."""
    pasted = User.objects.active().filter(username=request.session.get("pasted_as", ""))
    user = request.user if isinstance(request.user, User) else pasted.first()
    if user is None:
        return redirect("login")
    is_active = runner.is_active()  # read first, so that the last reload shows the outcome
    statuses = overview.statuses_of(user)
    # A browser that has only pasted a key shows no results of others, not even to staff.
    with_people = user.is_staff and request.user.is_authenticated
    views = overview.servers_for(user, statuses, with_people=with_people)
    context = {
        "watcher": user,
        "with_people": with_people,
        "revision": keys.current_revision(),
        "servers": views,
        "summary": overview.summary(views),
        "others": [view for view in views if view.is_unfinished],
        "has_keys": any(status.key.is_active for status in statuses),
        "is_active": is_active,
    }
    is_fragment = getattr(request, "htmx", False)
    return render(request, "servers/_push_log.html" if is_fragment else "servers/push_log.html", context)


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """For monitoring: 200 if the database answers and the worker's heartbeat is recent, else 503."""
    try:
        silence = heartbeat.silence()
        lag, ahead = backlog.measure(), backlog.ahead().count()
    except DatabaseError:
        return JsonResponse({"ok": False, "database": "unavailable", "worker": "unknown"}, status=503)
    seconds = None if silence is None else int(silence.total_seconds())
    is_ok = silence is not None and silence <= heartbeat.SILENT_AFTER
    state = {"ok": is_ok, "database": "ok", "worker": "ok" if is_ok else "silent"}
    lags = {
        "worker_heartbeat_age_seconds": seconds,
        "oldest_pending_seconds": lag.seconds,
        "servers_behind": lag.servers,
        "servers_ahead": ahead,
    }
    return JsonResponse({**state, **lags}, status=200 if is_ok else 503)


@csrf_exempt  # servers authenticate with a token, not with a session
@require_POST
def server_online(request: HttpRequest, name: str) -> HttpResponse:
    """A server reports, with its token, that it is online: the portal pushes to it now.

    With `?revoked=1` it has keys to report that its staff revoked by hand: the portal asks for them.
    """
    server = read_access.server_of(request)
    if server is None or server.name != name:
        return HttpResponse("Not allowed: send the token of this server.\n", status=403, content_type="text/plain")
    runner.server_online(server)
    if "revoked" in request.GET:
        inspection.request(server)
    return HttpResponse(status=204)


def _my_page(request: HttpRequest, user: User, new_token: str = "") -> HttpResponse:
    port = getattr(user, "port", None)
    block = getattr(user, "subuids", None)
    config = overview.ssh_config_of(user, port.number) if port else ""
    statuses = overview.statuses_of(user)
    context = {
        "port": port,
        "subuids": block,  # "block" is a template keyword
        "last_subuid": block.start + SUBUID_COUNT - 1 if block else 0,
        "statuses": [status for status in statuses if status.key.is_active],
        "leaving": [status for status in statuses if not status.key.is_active],
        "add_key_form": AddKeyForm(),
        "ssh_config": config,
        "servers": overview.servers_for(user, statuses),
        "tokens": AuthToken.objects.filter(user=user).order_by("created"),
        "new_token": new_token,
    }
    return render(request, "servers/me.html", context)
