"""Review and confirm pushes that were held back because they would remove many keys."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from lab_iam.admin import ReadOnlyAdmin, actor_of, badge, confirm_page, is_confirmed
from servers.models import HeldBackPush
from servers.services.push import guard

MAX_NAMES = 500  # on one page
COMMON = ["people_count", "keys_count", "keys_total", "share", "created_at", "decided_by", "decided_at"]


@admin.register(HeldBackPush)
class HeldBackPushAdmin(ReadOnlyAdmin):
    list_display = ["server", "shown_state", *COMMON]
    list_filter = ["state", "server"]
    list_select_related = ["server"]
    list_display_links = ["server"]
    search_fields = ["server__name", "decided_by"]
    date_hierarchy = "created_at"
    actions = ["confirm"]
    large = ["removed_keys"]
    change_form_template = "servers/admin_held_back_push.html"
    fields = ["server", "state", "base_revision", "revision", *COMMON]

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("servers.change_heldbackpush")

    @admin.display(description="state", ordering="state")
    def shown_state(self, push: HeldBackPush) -> SafeString:
        return badge({"waiting": "bad", "confirmed": "warn", "applied": "good"}.get(push.state, "soft"), push.state)

    @admin.display(description="share")
    def share(self, push: HeldBackPush) -> str:
        return f"{push.percent}%"

    @admin.action(description="Remove these keys…", permissions=["decide"])
    def confirm(self, request: HttpRequest, chosen: QuerySet[HeldBackPush]) -> HttpResponse | None:
        waiting = list(chosen.filter(state=HeldBackPush.State.WAITING).select_related("server"))
        if not is_confirmed(request):
            context = {"chosen": waiting, "lost": _losses(waiting), "most": MAX_NAMES}
            return confirm_page(self, request, "Confirm these pushes?", "servers/admin_confirm_push.html", **context)
        for push in waiting:
            mark = request.POST.get(f"mark-{push.pk}", "")
            if guard.confirm(actor=actor_of(request), held_back=push, mark=mark):
                self.message_user(request, f"{push.server}: push confirmed.", messages.SUCCESS)
            else:
                text = f"{push.server}: the keys to remove have changed. Review the push again."
                self.message_user(request, text, messages.ERROR)
        return None

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        push = self.get_object(request, object_id)
        context = {"push": push, "lost": _losses([push] if push else []), "most": MAX_NAMES}
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))


def _losses(pushes: list[HeldBackPush]) -> list[tuple[str, int]]:
    """Name and number of keys to remove, of all these servers together: most servers have the same keys."""
    lost: dict[str, set[str]] = {}
    for push in pushes:
        for name, keys in push.removed_keys.items():
            lost.setdefault(name, set()).update(keys)
    return [(name, len(keys)) for name, keys in sorted(lost.items())]
