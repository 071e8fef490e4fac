"""The servers section of the admin's first page."""

from datetime import timedelta

from django.http import HttpRequest

from lab_iam.dashboard import Metric, Section
from servers import disks
from servers.models import Container, ContainerJob, HandRevocation, HeldBackPush, Server
from servers.services.status import backlog
from servers.services.worker import heartbeat

LATE_SECONDS = 3600
BY_HAND = "more than a server may remove without you: review them"
HELD = "they would remove many keys: review them"
AHEAD = "restored an older database? select them and use the portal's keys"


def servers_section(request: HttpRequest) -> Section:
    """Whether all servers are up to date, and whether the worker is running."""
    enabled, behind = Server.objects.in_service(), backlog.behind()
    changed = enabled.exclude(offered_host_key="").count()
    running = Container.objects.filter(state=Container.State.RUNNING).count()
    failed = ContainerJob.objects.filter(state=ContainerJob.State.FAILED).count()
    held = HeldBackPush.objects.filter(state=HeldBackPush.State.WAITING).count()
    ahead, count = backlog.ahead().count(), behind.count()
    low = sum(bool(disks.shortages(value)) for value in enabled.values_list("state__disks", flat=True))
    by_hand = HandRevocation.objects.filter(state=HandRevocation.State.WAITING).count()
    page = "/admin/servers/server/"
    return Section(
        "Servers",
        [
            Metric("In service", enabled.count(), page),
            Metric("Behind", count, page, tone="warn" if count else "good"),
            _lag_metric(),
            _alarm("Held-back pushes", held, "/admin/servers/heldbackpush/?state__exact=waiting", HELD),
            _alarm("Keys revoked on servers", by_hand, "/admin/servers/handrevocation/?state__exact=waiting", BY_HAND),
            _alarm("Ahead of the database", ahead, page, AHEAD),
            _alarm("New host key", changed, page),
            _alarm("Disks almost full", low, page),
            Metric("Running containers", running, "/admin/servers/container/?state__exact=running"),
            Metric("Failed container jobs", failed, "/admin/servers/containerjob/?state__exact=failed"),
            _worker_metric(),
        ],
        template="servers/_servers_behind.html",
        context={"servers": behind.order_by("name")[:20]},
    )


def _alarm(label: str, count: int, url: str, note: str = "") -> Metric:
    return Metric(label, count, url, note if count else "", "bad" if count else "good")


def _lag_metric() -> Metric:
    seconds = backlog.measure().seconds
    if seconds is None:
        return Metric("Oldest pending change", "none", tone="good")
    tone = "warn" if seconds < LATE_SECONDS else "bad"
    return Metric("Oldest pending change", f"{timedelta(seconds=seconds)}", tone=tone)


def _worker_metric() -> Metric:
    silence = heartbeat.silence()
    if silence is None:
        return Metric("Worker", "no heartbeat", tone="bad", note="run manage.py worker")
    tone = "bad" if silence > heartbeat.SILENT_AFTER else "good"
    return Metric("Last worker heartbeat", f"{int(silence.total_seconds())} s ago", tone=tone)
