"""Review the differences of servers that are ahead of the database, and let the portal's keys replace those there."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from lab_iam.admin import actor_of, confirm_page, is_confirmed
from servers.models import Server
from servers.services.push import revisions
from servers.ssh.dial import RemoteError

MAX_SERVERS = 5  # in one request; each takes up to remote.STATUS_SECONDS
MAX_NAMES = 500  # on one page


@admin.action(description="Use the portal's keys…", permissions=["change"])
def adopt(model_admin: admin.ModelAdmin, request: HttpRequest, chosen: QuerySet[Server]) -> HttpResponse | None:
    ahead = list(chosen.filter(state__ahead_since__isnull=False)[:MAX_SERVERS])
    if not is_confirmed(request):
        context = _differences(ahead) | {"most": MAX_NAMES}
        title, template = "Replace the keys on these servers?", "servers/admin_adopt.html"
        return confirm_page(model_admin, request, title, template, **context)
    for server in ahead:
        try:
            mark = request.POST.get(f"mark-{server.pk}", "")
            is_done = revisions.adopt(actor=actor_of(request), server=server, mark=mark)
        except RemoteError as error:
            model_admin.message_user(request, f"{server}: {error}", messages.ERROR)
            continue
        text = "the portal's keys will replace those there." if is_done else "the keys have changed. Review them again."
        model_admin.message_user(request, f"{server}: {text}", messages.SUCCESS if is_done else messages.ERROR)
    return None


def _differences(servers: list[Server]) -> dict[str, Any]:
    found, faults = [], []
    for server in servers:
        try:
            found.append(revisions.compare(server))
        except RemoteError as error:
            faults.append((server, error))
    found = [one for one in found if not one.is_known]
    return {"chosen": [one.server for one in found], "differences": found, "faults": faults}
