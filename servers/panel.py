from django.db.models import Q
from django.http import HttpRequest

from accounts.services import keys
from lab_iam.dashboard import Figure, Panel
from servers.models import Container, Registration, Server
from servers.services import worker


def servers_panel(request: HttpRequest) -> Panel:
    """The first page of the administration: are the keys everywhere, and does the worker live?"""
    enabled = Server.objects.filter(enabled=True)
    behind = enabled.filter(Q(applied_revision__lt=keys.current_revision()) | Q(behind_since__isnull=False))
    changed = enabled.exclude(offered_host_key="").count()
    running = Container.objects.filter(state=Container.State.RUNNING).count()
    failed = Registration.objects.filter(state=Registration.State.FAILED).count()
    count = behind.count()
    page = "/admin/servers/server/"
    return Panel(
        "Servers",
        [
            Figure("servers in service", enabled.count(), page),
            Figure("without the latest keys", count, page, tone="warn" if count else "good"),
            Figure("with a changed host key", changed, page, tone="bad" if changed else "good"),
            Figure("running containers", running, "/admin/servers/container/?state__exact=running"),
            Figure("failed registrations", failed, "/admin/servers/registration/?state__exact=failed"),
            _worker_figure(),
        ],
        template="servers/_panel.html",
        context={"servers": behind.order_by("name")[:20]},
    )


def _worker_figure() -> Figure:
    silence = worker.silence()
    if silence is None:
        return Figure("worker", "never seen", tone="bad", note="start manage.py qcluster")
    tone = "bad" if silence > worker.SILENT_AFTER else "good"
    return Figure("worker seen", f"{int(silence.total_seconds())} s ago", tone=tone)
