"""Rows that services write, to be read."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.admin import MachineMade
from servers.models import Container, Placement, Registration, Sync


@admin.register(Container)
class ContainerAdmin(MachineMade):
    list_display = ["user", "server", "state", "address", "last_seen"]
    list_filter = ["state", "server"]
    list_select_related = ["user", "server"]
    search_fields = ["user__username", "server__name", "address"]


@admin.register(Sync)
class SyncAdmin(MachineMade):
    list_display = ["server", "state", "revision", "trigger", "started_at", "finished_at", "written", "error"]
    list_filter = ["state", "server"]
    list_select_related = ["server"]
    search_fields = ["server__name", "error"]
    date_hierarchy = "created_at"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Sync]:
        everything = super().get_queryset(request)
        is_list = request.resolver_match is not None and request.resolver_match.url_name == "servers_sync_changelist"
        return everything.defer("results") if is_list else everything


@admin.register(Registration)
class RegistrationAdmin(MachineMade):
    list_display = [
        "user",
        "server",
        "state",
        "requested_by",
        "attempts",
        "started_at",
        "finished_at",
        "error",
    ]
    list_filter = ["state", "server"]
    list_select_related = ["user", "server"]
    search_fields = ["user__username", "server__name", "error"]
    date_hierarchy = "created_at"


@admin.register(Placement)
class PlacementAdmin(MachineMade):
    list_display = ["user", "server", "host", "host_since", "container", "container_since", "error"]
    list_filter = ["host", "container", "server"]
    list_select_related = ["user", "server"]
    search_fields = ["user__username", "server__name", "error"]
