"""Review keys that staff revoked by hand on servers, where there are too many to remove them without a question."""

from collections.abc import Callable

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import pluralize
from django.utils.safestring import SafeString

from lab_iam.admin import ReadOnlyAdmin, actor_of, badge, confirm_page, is_confirmed
from servers.models import HandRevocation
from servers.services.push import revocations

REMOVE = (
    "These keys go from every server, and their owners must add new ones. Ask the staff of the server first: a server "
    "that was taken over could report anybody's keys."
)
KEEP = "The next push gives these keys back to their servers."


@admin.register(HandRevocation)
class HandRevocationAdmin(ReadOnlyAdmin):
    list_display = ["key", "person", "server", "shown_state", "revoked_at", "decided_by", "decided_at"]
    list_filter = ["state", "server"]
    list_select_related = ["server", "key__user"]
    search_fields = ["server__name", "key__fingerprint", "key__user__username"]
    actions = ["remove_keys", "keep_keys"]
    fields = ["server", "key", "person", "state", "is_listed", "revoked_at", "created_at", "decided_by", "decided_at"]

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("servers.change_handrevocation")

    @admin.display(description="person", ordering="key__user__username")
    def person(self, row: HandRevocation) -> str:
        return str(row.key.user)

    @admin.display(description="state", ordering="state")
    def shown_state(self, row: HandRevocation) -> SafeString:
        return badge({"waiting": "bad", "removed": "good"}.get(row.state, "soft"), row.state)

    @admin.action(description="Remove these keys…", permissions=["decide"])
    def remove_keys(self, request: HttpRequest, chosen: QuerySet[HandRevocation]) -> HttpResponse | None:
        return self._decide(request, chosen, ("Remove these keys", REMOVE, "removed"), revocations.remove)

    @admin.action(description="Keep these keys…", permissions=["decide"])
    def keep_keys(self, request: HttpRequest, chosen: QuerySet[HandRevocation]) -> HttpResponse | None:
        return self._decide(request, chosen, ("Keep these keys", KEEP, "kept"), revocations.keep)

    def _decide(
        self,
        request: HttpRequest,
        chosen: QuerySet[HandRevocation],
        texts: tuple[str, str, str],
        decide: Callable[..., int],
    ) -> HttpResponse | None:
        """The page that asks, or the decision."""
        button, question, done = texts
        waiting = chosen.filter(state=HandRevocation.State.WAITING)
        if not is_confirmed(request):
            context = {"chosen": waiting, "button": button, "question": question}
            return confirm_page(self, request, f"{button}?", "servers/admin_hand_revocation.html", **context)
        count = decide(actor=actor_of(request), rows=waiting)
        self.message_user(request, f"{count} key{pluralize(count)} {done}.", messages.SUCCESS)
        return None
