"""The servers section of the admin's first page."""

from datetime import timedelta

from django.http import HttpRequest

from lab_iam.dashboard import Figure, Panel
from servers.models import Container, ContainerJob, HeldBackPush, Server
from servers.services.push import revisions
from servers.services.status import backlog
from servers.services.worker import heartbeat

LATE_SECONDS = 3600
HELD = "many keys would go: look, then confirm"
AHEAD = "an older database? see manage.py raise_revision"


def servers_panel(request: HttpRequest) -> Panel:
    """The first page of the administration: are the keys everywhere, and does the worker live?"""
    enabled = Server.objects.filter(enabled=True)
    behind = backlog.behind()
    changed = enabled.exclude(offered_host_key="").count()
    running = Container.objects.filter(state=Container.State.RUNNING).count()
    failed = ContainerJob.objects.filter(state=ContainerJob.State.FAILED).count()
    held = HeldBackPush.objects.filter(state=HeldBackPush.State.WAITING).count()
    ahead, count = revisions.ahead().count(), behind.count()
    page, held_back_pushes = "/admin/servers/server/", "/admin/servers/heldbackpush/?state__exact=waiting"
    return Panel(
        "Servers",
        [
            Figure("servers in service", enabled.count(), page),
            Figure("without the latest keys", count, page, tone="warn" if count else "good"),
            _lag_figure(),
            Figure(
                "pushes held back", held, held_back_pushes, tone="bad" if held else "good", note=HELD if held else ""
            ),
            Figure("newer than the portal", ahead, page, tone="bad" if ahead else "good", note=AHEAD if ahead else ""),
            Figure("with a changed host key", changed, page, tone="bad" if changed else "good"),
            Figure("running containers", running, "/admin/servers/container/?state__exact=running"),
            Figure("failed registrations", failed, "/admin/servers/containerjob/?state__exact=failed"),
            _worker_figure(),
        ],
        template="servers/_panel.html",
        context={"servers": behind.order_by("name")[:20]},
    )


def _lag_figure() -> Figure:
    seconds = backlog.measure().seconds
    if seconds is None:
        return Figure("oldest change not delivered", "none", tone="good")
    tone = "warn" if seconds < LATE_SECONDS else "bad"
    return Figure("oldest change not delivered", f"{timedelta(seconds=seconds)}", tone=tone)


def _worker_figure() -> Figure:
    silence = heartbeat.silence()
    if silence is None:
        return Figure("worker", "never seen", tone="bad", note="start manage.py worker")
    tone = "bad" if silence > heartbeat.SILENT_AFTER else "good"
    return Figure("worker seen", f"{int(silence.total_seconds())} s ago", tone=tone)
