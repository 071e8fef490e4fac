"""Admin pages of containers, their limits, pushes, container jobs and placements, and of keys with their state."""

from typing import Any

from django.contrib import admin
from django.contrib import messages as page_messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from accounts.admin import SSHKeyAdmin
from accounts.models import SSHKey
from lab_iam.admin import ReadOnlyAdmin, act_on_each, actor_of, badge, confirm_page, is_confirmed
from servers import messages
from servers.models import Container, ContainerJob, Limits, Placement, Push
from servers.services.containers import jobs
from servers.services.containers import limits as limits_service
from servers.services.status import key_status


class WithError(ReadOnlyAdmin):
    """Rows with a coded error: `reason` is what to search for, the text is shown."""

    readonly_fields = ["error_text"]

    @admin.display(description="error", ordering="error__reason")
    def error_text(self, row: ContainerJob | Placement | Push) -> str:
        return messages.render(row.error)


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

        def remove(row: Container) -> str:
            jobs.request_removal(actor=actor_of(request), server=row.server, user=row.user, purge=purge)
            return f"{row}: removal queued; see its container job."

        act_on_each(self, request, chosen, remove, jobs.JobRefused)
        return None


@admin.register(Push)
class PushAdmin(WithError):
    list_display = ["server", "state", "revision", "trigger", "started_at", "finished_at", "written", "error_text"]
    list_filter = ["state", "server"]
    list_select_related = ["server"]
    search_fields = ["server__name", "error__reason"]
    date_hierarchy = "created_at"
    large = ["results"]


@admin.register(ContainerJob)
class ContainerJobAdmin(WithError):
    times = ["next_attempt", "started_at", "finished_at"]
    list_display = ["user", "server", "kind", "state", "requested_by", "attempts", *times, "error_text"]
    list_filter = ["kind", "state", "server"]
    list_select_related = ["user", "server"]
    search_fields = ["user__username", "server__name", "error__reason"]
    date_hierarchy = "created_at"


@admin.register(Placement)
class PlacementAdmin(WithError):
    list_display = ["user", "server", "host", "host_since", "container", "container_since", "error_text"]
    list_filter = ["host", "container", "server"]
    list_select_related = ["user", "server"]
    search_fields = ["user__username", "server__name", "error__reason"]


@admin.register(Limits)
class LimitsAdmin(admin.ModelAdmin):
    list_display = ["__str__", "memory", "cpus", "processes", "gpus", "disk"]
    list_filter = ["server"]
    list_select_related = ["user", "server"]
    search_fields = ["user__username", "server__name"]
    autocomplete_fields = ["user", "server"]

    def save_model(self, request: HttpRequest, obj: Limits, form: Any, change: bool) -> None:
        limits_service.save(actor=actor_of(request), limits=obj)
        self.message_user(request, "The limits apply when a container next starts.", page_messages.INFO)

    def delete_model(self, request: HttpRequest, obj: Limits) -> None:
        limits_service.remove(actor=actor_of(request), limits=obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Limits]) -> None:
        for row in queryset:
            limits_service.remove(actor=actor_of(request), limits=row)


admin.site.unregister(SSHKey)


@admin.register(SSHKey)
class KeyWithStatusAdmin(SSHKeyAdmin):
    list_display = [*SSHKeyAdmin.list_display[:2], "where", *SSHKeyAdmin.list_display[2:]]
    change_form_template = "servers/admin_key.html"

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changes = super().get_changelist_instance(request)
        rows = list(changes.result_list)
        for row, status in zip(rows, key_status.status_of(rows), strict=True):
            row.status = status
        changes.result_list = rows
        return changes

    @admin.display(description="where")
    def where(self, key: SSHKey) -> SafeString:
        status: key_status.KeyStatus = key.status  # type: ignore[attr-defined]
        tone = "warn" if status.is_wanted else "bad"
        return badge(tone if status.unfinished else "good", status.summary)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        key = self.get_object(request, object_id)
        context = {"status": key and key_status.status_of([key])[0]}
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))
