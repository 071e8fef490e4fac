"""The admin pages of keys, with the state on each server, which the accounts app cannot know."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.admin import SSHKeyAdmin
from accounts.models import SSHKey
from servers.services.status import key_status

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
        return format_html('<span class="{}">{}</span>', tone if status.unfinished else "good", status.summary)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        keys = list(SSHKey.objects.select_related("user").filter(pk=object_id)) if object_id.isdecimal() else []
        statuses = key_status.status_of(keys)
        context = {"status": statuses[0] if statuses else None}
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))
