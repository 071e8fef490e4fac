"""Admin pages of people, keys, numbers and the audit log."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import get_deleted_objects
from django.contrib.auth.models import Group
from django.db.models import Count, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import pluralize
from django.template.response import TemplateResponse

from accounts.models import AuditEvent, Port, SSHKey, SubuidRange, User
from accounts.services import keys, people

admin.site.unregister(Group)  # staff see everything, the others nothing: there are no groups to give


class MachineMade(admin.ModelAdmin):
    """Rows that only services write: to be read here, never added, changed or deleted."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def _actor(request: HttpRequest) -> str:
    return request.user.get_username()


@admin.register(User)
class UserAdmin(admin.ModelAdmin):
    list_display = [
        "username",
        "display_name",
        "active_keys",
        "port",
        "subuids",
        "is_active",
        "is_staff",
        "kind",
    ]
    list_filter = ["is_active", "is_staff", ("directory_id", admin.EmptyFieldListFilter)]
    list_select_related = ["port", "subuids"]
    search_fields = ["username", "display_name", "port__number", "ssh_keys__fingerprint"]
    search_help_text = "Name, full name, port or fingerprint"
    actions = ["lock_out", "let_in"]
    fields = [
        "username",
        "display_name",
        "directory_id",
        "is_active",
        "is_staff",
        "port",
        "subuids",
        "date_joined",
        "last_login",
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        active = Q(ssh_keys__revoked_revision__isnull=True, ssh_keys__isnull=False)
        return super().get_queryset(request).annotate(active_keys=Count("ssh_keys", filter=active))

    @admin.display(description="keys", ordering="active_keys")
    def active_keys(self, user: User) -> int:
        return getattr(user, "active_keys", 0)

    @admin.display(description="account")
    def kind(self, user: User) -> str:
        return "local" if user.is_local else "directory"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # people appear when they first sign in; local accounts come from createsuperuser

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        # Changes go through the actions. They ask for this permission without an object.
        return obj is None and super().has_change_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Only a single person who is locked out already, never many at once and never oneself."""
        allowed = obj is not None and not obj.is_active and obj.pk != request.user.pk
        return allowed and super().has_delete_permission(request, obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Keys do not stand in the way: the service removes them first and keeps them in the audit log."""
        to_delete, counts, _, protected = get_deleted_objects(objs, request, self.admin_site)
        name = SSHKey._meta.verbose_name
        own = [text for text in protected if f"{name}:".lower() in str(text).lower()]
        return to_delete, counts, set(), [text for text in protected if text not in own]

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except people.PersonInUse as error:
            self.message_user(request, str(error), messages.ERROR)
            return redirect("admin:accounts_user_change", object_id)

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        people.delete(actor=_actor(request), user=obj)

    @admin.action(description="Lock out (keys leave the servers)", permissions=["change"])
    def lock_out(self, request: HttpRequest, chosen: QuerySet[User]) -> None:
        others = chosen.exclude(username=_actor(request))
        if others.count() != chosen.count():
            self.message_user(request, "You cannot lock yourself out.", messages.WARNING)
        self._set_active(request, others, active=False)

    @admin.action(description="Let in again", permissions=["change"])
    def let_in(self, request: HttpRequest, chosen: QuerySet[User]) -> None:
        self._set_active(request, chosen, active=True)

    def _set_active(self, request: HttpRequest, chosen: QuerySet[User], *, active: bool) -> None:
        done = [people.set_active(actor=_actor(request), user=user, active=active) for user in chosen]
        words = "let in" if active else "locked out"
        self.message_user(request, f"{sum(done)} {words}, {len(done) - sum(done)} already were.", messages.SUCCESS)


class ActiveKeys(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "active"), ("removed", "removed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[SSHKey]) -> QuerySet[SSHKey]:
        if self.value() is None:
            return queryset
        return queryset.filter(revoked_revision__isnull=self.value() == "active")


@admin.register(SSHKey)
class SSHKeyAdmin(MachineMade):
    list_display = ["fingerprint", "user", "key_type", "comment", "created_at", "revoked_at"]
    list_filter = [ActiveKeys, "key_type"]
    list_select_related = ["user"]
    search_fields = ["fingerprint", "comment", "user__username", "user__display_name"]
    date_hierarchy = "created_at"
    actions = ["revoke"]

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.change_sshkey")

    @admin.action(description="Remove from all servers…", permissions=["revoke"])
    def revoke(self, request: HttpRequest, chosen: QuerySet[SSHKey]) -> HttpResponse | None:
        active = chosen.filter(revoked_revision__isnull=True).select_related("user")
        if request.POST.get("confirmed") != "yes":
            context = {
                **self.admin_site.each_context(request),
                "title": "Remove these keys?",
                "opts": self.model._meta,
                "keys": active,
                "selected": request.POST.getlist("_selected_action"),
            }
            return TemplateResponse(request, "accounts/admin_revoke.html", context)
        count = keys.revoke_keys(actor=_actor(request), keys=active)
        self.message_user(
            request, f"{count} key{pluralize(count)} removed; the servers are told now.", messages.SUCCESS
        )
        return None


@admin.register(Port)
class PortAdmin(MachineMade):
    list_display = ["number", "username", "user", "issued_at"]
    list_filter = [("user", admin.EmptyFieldListFilter)]
    list_select_related = ["user"]
    search_fields = ["=number", "username"]


@admin.register(SubuidRange)
class SubuidRangeAdmin(MachineMade):
    list_display = ["start", "username", "user", "issued_at"]
    list_filter = [("user", admin.EmptyFieldListFilter)]
    list_select_related = ["user"]
    search_fields = ["=start", "username"]


@admin.register(AuditEvent)
class AuditEventAdmin(MachineMade):
    list_display = ["at", "actor", "verb", "object", "detail"]
    list_filter = ["verb"]
    search_fields = ["actor", "verb", "object"]
    date_hierarchy = "at"
