"""Pushes that were held back because they would take many keys away: looked at, then confirmed."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.admin import MachineMade
from servers.admin.actor import actor_of
from servers.models import HeldBackPush
from servers.services.push import guard

MAX_NAMES = 500  # on one page


@admin.register(HeldBackPush)
class HeldBackPushAdmin(MachineMade):
    list_display = [
        "server",
        "shown_state",
        "people",
        "keys",
        "of_keys",
        "share",
        "created_at",
        "decided_by",
        "decided_at",
    ]
    list_filter = ["state", "server"]
    list_select_related = ["server"]
    list_display_links = ["server"]
    search_fields = ["server__name", "decided_by"]
    date_hierarchy = "created_at"
    actions = ["confirm"]
    change_form_template = "servers/admin_held_back_push.html"
    fields = [
        "server",
        "state",
        "base_revision",
        "revision",
        "people",
        "keys",
        "of_keys",
        "share",
        "created_at",
        "decided_by",
        "decided_at",
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[HeldBackPush]:
        everything = super().get_queryset(request)
        is_list = (
            request.resolver_match is not None and request.resolver_match.url_name == "servers_heldbackpush_changelist"
        )
        return everything.defer("gone") if is_list and request.method == "GET" else everything

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("servers.change_heldbackpush")

    @admin.display(description="state", ordering="state")
    def shown_state(self, removal: HeldBackPush) -> SafeString:
        tone = {"waiting": "bad", "confirmed": "warn", "applied": "good"}.get(removal.state, "soft")
        return format_html('<span class="{}">{}</span>', tone, removal.state)

    @admin.display(description="share")
    def share(self, removal: HeldBackPush) -> str:
        return f"{removal.percent} %"

    @admin.action(description="Let these keys be removed…", permissions=["decide"])
    def confirm(self, request: HttpRequest, chosen: QuerySet[HeldBackPush]) -> HttpResponse | None:
        waiting = list(chosen.filter(state=HeldBackPush.State.WAITING).select_related("server"))
        if request.POST.get("confirmed") != "yes":
            context = {
                **self.admin_site.each_context(request),
                "title": "Let these keys be removed?",
                "opts": self.model._meta,
                "removals": waiting,
                "lost": _names(waiting),
                "most": MAX_NAMES,
            }
            return TemplateResponse(request, "servers/admin_confirm_push.html", context)
        for removal in waiting:
            mark = request.POST.get(f"mark-{removal.pk}", "")
            if guard.confirm(actor=actor_of(request), removal=removal, mark=mark):
                self.message_user(request, f"{removal.server}: confirmed; the keys go now.", messages.SUCCESS)
            else:
                words = f"{removal.server}: something else would go now. Look at it again."
                self.message_user(request, words, messages.ERROR)
        return None

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        removal = (
            HeldBackPush.objects.select_related("server").filter(pk=object_id if object_id.isdecimal() else 0).first()
        )
        context = {"removal": removal, "lost": _names([removal] if removal else []), "most": MAX_NAMES}
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))


def _names(held_back_pushes: list[HeldBackPush]) -> list[tuple[str, int]]:
    """Who would lose how many keys, of all these servers together: on most servers they are the same."""
    lost: dict[str, set[str]] = {}
    for removal in held_back_pushes:
        for name, keys in removal.gone.items():
            lost.setdefault(name, set()).update(keys)
    return [(name, len(keys)) for name, keys in sorted(lost.items())]
