"""Admin pages of people, keys, ports, subordinate ids and the audit log."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import get_deleted_objects
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import pluralize

from accounts.models import AuditEvent, Port, SSHKey, SubuidRange, User
from accounts.services import keys, people
from lab_iam.admin import ReadOnlyAdmin, actor_of, confirm_page, is_confirmed, report_changes

admin.site.unregister(Group)  # staff see everything, other people nothing


@admin.register(User)
class UserAdmin(admin.ModelAdmin):
    numbers = ["port", "subuids"]
    list_display = ["username", "display_name", "active_keys", "port", "subuids", "is_active", "is_staff", "kind"]
    list_filter = ["is_active", "is_staff", ("directory_id", admin.EmptyFieldListFilter)]
    list_select_related = numbers
    search_fields = ["username", "display_name", "port__number", "ssh_keys__fingerprint"]
    search_help_text = "User name, full name, port or key fingerprint"
    actions = ["lock_out", "unlock"]
    fields = [
        "username",
        "display_name",
        "directory_id",
        "is_active",
        "is_staff",
        *numbers,
        "date_joined",
        "last_login",
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        active = Q(ssh_keys__revoked_at__isnull=True, ssh_keys__isnull=False)
        return super().get_queryset(request).annotate(active_keys=Count("ssh_keys", filter=active))

    @admin.display(description="keys", ordering="active_keys")
    def active_keys(self, user: User) -> int:
        return getattr(user, "active_keys", 0)

    @admin.display(description="account")
    def kind(self, user: User) -> str:
        return "local" if user.is_local else "directory"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # people are created at their first sign-in, local accounts by createsuperuser

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        # Changes are made by the actions, which check this permission without an object.
        return obj is None and super().has_change_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """One person at a time, who is locked out, and not the person signed in."""
        allowed = obj is not None and not obj.is_active and obj.pk != request.user.pk
        return allowed and super().has_delete_permission(request, obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Keys do not prevent deletion: the service removes them and records them in the audit log."""
        to_delete, counts, _, protected = get_deleted_objects(objs, request, self.admin_site)
        prefix = f"{SSHKey._meta.verbose_name}:".lower()
        return to_delete, counts, set(), [text for text in protected if prefix not in str(text).lower()]

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except people.PersonInUse as error:
            self.message_user(request, str(error), messages.ERROR)
            return redirect("admin:accounts_user_change", object_id)

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        people.delete(actor=actor_of(request), user=obj)

    @admin.action(description="Lock out…", permissions=["change"])
    def lock_out(self, request: HttpRequest, chosen: QuerySet[User]) -> HttpResponse | None:
        others = chosen.filter(is_active=True).exclude(username=actor_of(request))
        if chosen.filter(username=actor_of(request)).exists():
            self.message_user(request, "You cannot lock yourself out.", messages.WARNING)
        if not is_confirmed(request):
            return confirm_page(self, request, "Lock these people out?", "accounts/admin_lock_out.html", chosen=others)
        with transaction.atomic():  # one revision after the other, but one push
            self._set_active(request, others, active=False)
        return None

    @admin.action(description="Unlock", permissions=["change"])
    def unlock(self, request: HttpRequest, chosen: QuerySet[User]) -> None:
        self._set_active(request, chosen, active=True)

    def _set_active(self, request: HttpRequest, chosen: QuerySet[User], *, active: bool) -> None:
        actor = actor_of(request)
        done = [people.set_active(actor=actor, user=user, active=active, confirmed=True) for user in chosen]
        report_changes(self, request, done, ("person", "people"), "unlocked" if active else "locked out")


class ActiveKeys(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "active"), ("removed", "removed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[SSHKey]) -> QuerySet[SSHKey]:
        if self.value() is None:
            return queryset
        return queryset.filter(revoked_at__isnull=self.value() == "active")


@admin.register(SSHKey)
class SSHKeyAdmin(ReadOnlyAdmin):
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
        active = chosen.filter(revoked_at__isnull=True).select_related("user")
        if not is_confirmed(request):
            return confirm_page(self, request, "Remove these keys?", "accounts/admin_revoke.html", chosen=active)
        count = keys.revoke_keys(actor=actor_of(request), keys=active, confirmed=True)
        self.message_user(request, f"{count} key{pluralize(count)} removed.", messages.SUCCESS)
        return None


@admin.register(Port)
class PortAdmin(ReadOnlyAdmin):
    list_display = ["number", "username", "user", "issued_at"]
    list_filter = [("user", admin.EmptyFieldListFilter)]
    list_select_related = ["user"]
    search_fields = ["=number", "username"]


@admin.register(SubuidRange)
class SubuidRangeAdmin(ReadOnlyAdmin):
    list_display = ["start", "username", "user", "issued_at"]
    list_filter = [("user", admin.EmptyFieldListFilter)]
    list_select_related = ["user"]
    search_fields = ["=start", "username"]


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ["at", "actor", "verb", "object", "detail"]
    list_filter = ["verb"]
    search_fields = ["actor", "verb", "object"]
    date_hierarchy = "at"
    fields = ["at", "actor", "verb", "object", "detail"]
