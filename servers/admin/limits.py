"""Limits of containers: for everybody, a server, a person, or one container."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from lab_iam.admin import actor_of
from servers.models import Limits
from servers.services.containers import limits


@admin.register(Limits)
class LimitsAdmin(admin.ModelAdmin):
    list_display = ["__str__", "memory", "cpus", "processes", "gpus", "disk"]
    list_filter = ["server"]
    list_select_related = ["user", "server"]
    search_fields = ["user__username", "server__name"]
    autocomplete_fields = ["user", "server"]

    def save_model(self, request: HttpRequest, obj: Limits, form: Any, change: bool) -> None:
        limits.save(actor=actor_of(request), limits=obj)
        self.message_user(request, "The limits apply when a container next starts.", messages.INFO)

    def delete_model(self, request: HttpRequest, obj: Limits) -> None:
        limits.remove(actor=actor_of(request), limits=obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Limits]) -> None:
        for row in queryset:
            limits.remove(actor=actor_of(request), limits=row)
