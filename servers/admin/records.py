"""Read-only admin pages of containers, pushes, container jobs and placements."""

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from lab_iam.admin import ReadOnlyAdmin, actor_of, confirm_page, is_confirmed
from servers.models import Container, ContainerJob, Placement, Push
from servers.services.containers import jobs, suspension


@admin.register(Container)
class ContainerAdmin(ReadOnlyAdmin):
    list_display = ["user", "server", "state", "address", "last_seen"]
    list_filter = ["state", "server"]
    list_select_related = ["user", "server"]
    search_fields = ["user__username", "server__name", "address"]
    actions = ["remove_container"]

    @admin.action(description="Remove…")
    def remove_container(self, request: HttpRequest, chosen: QuerySet[Container]) -> HttpResponse | None:
        if not request.user.has_perm("servers.change_server"):
            raise PermissionDenied
        if not is_confirmed(request):
            return confirm_page(self, request, "Remove these containers?", "servers/admin_remove.html", chosen=chosen)
        purge = request.POST.get("purge") == "yes"
        for row in chosen:
            try:
                suspension.request(actor=actor_of(request), server=row.server, user=row.user, purge=purge)
            except jobs.JobRefused as refused:
                self.message_user(request, str(refused), messages.ERROR)
            else:
                self.message_user(request, f"{row}: removal queued; see its container job.", messages.SUCCESS)
        return None


@admin.register(Push)
class PushAdmin(ReadOnlyAdmin):
    list_display = ["server", "state", "revision", "trigger", "started_at", "finished_at", "written", "error"]
    list_filter = ["state", "server"]
    list_select_related = ["server"]
    search_fields = ["server__name", "error"]
    date_hierarchy = "created_at"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Push]:
        everything = super().get_queryset(request)
        is_list = request.resolver_match is not None and request.resolver_match.url_name == "servers_push_changelist"
        return everything.defer("results") if is_list else everything


@admin.register(ContainerJob)
class ContainerJobAdmin(ReadOnlyAdmin):
    list_display = [
        "user",
        "server",
        "kind",
        "state",
        "requested_by",
        "attempts",
        "next_attempt",
        "started_at",
        "finished_at",
        "error",
    ]
    list_filter = ["kind", "state", "server"]
    list_select_related = ["user", "server"]
    search_fields = ["user__username", "server__name", "error"]
    date_hierarchy = "created_at"


@admin.register(Placement)
class PlacementAdmin(ReadOnlyAdmin):
    list_display = ["user", "server", "host", "host_since", "container", "container_since", "error"]
    list_filter = ["host", "container", "server"]
    list_select_related = ["user", "server"]
    search_fields = ["user__username", "server__name", "error"]
