from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, Exists, OuterRef, QuerySet, Value
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django_q.models import Schedule
from knox.models import AuthToken

from accounts.admin import MachineMade
from accounts.models import User
from accounts.services import keys
from servers import limits_admin  # noqa: F401  registers its page
from servers.dialing import RemoteError
from servers.models import Container, Registration, Server, Sync
from servers.services import delivery, inventory, probe, registration

# A schedule runs any function of Python's in the worker, and a token speaks for anybody: neither is made by hand.
admin.site.unregister([Schedule, AuthToken])

MAX_TESTS = 5  # at once in a request; each takes up to probe.SECONDS


def _actor(request: HttpRequest) -> str:
    return request.user.get_username()


class PersonForm(forms.Form):
    """Whose container is to be made."""

    name = forms.CharField(label="Person", max_length=32)

    def clean_name(self) -> User:
        user = User.objects.filter(username=self.cleaned_data["name"].lower(), is_active=True).first()
        if user is None:
            raise ValidationError("There is no active person of this name.")
        return user


class ServerForm(forms.ModelForm):
    def clean_address(self) -> str:
        return inventory.canonical(self.cleaned_data["address"])


class Behind(admin.SimpleListFilter):
    title = "keys"
    parameter_name = "keys"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("behind", "without the latest"), ("current", "up to date")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Server]) -> QuerySet[Server]:
        current = {"applied_revision__gte": keys.current_revision(), "behind_since__isnull": True}
        if self.value() == "behind":
            return queryset.exclude(**current)
        return queryset.filter(**current) if self.value() == "current" else queryset


@admin.register(Server)
class ServerAdmin(admin.ModelAdmin):
    list_display = [
        "name",
        "address",
        "state",
        "revision",
        "behind_since",
        "next_attempt",
        "last_contact",
        "container_count",
        "storage",
        "last_error",
    ]
    list_filter = ["enabled", Behind, ("offered_host_key", admin.EmptyFieldListFilter)]
    search_fields = ["name", "address"]
    form = ServerForm
    actions = ["push_now", "test_connection", "register_container", "accept_host_key", "enable", "disable"]
    editable = ["address", "ssh_port"]
    fields = [
        "name",
        *editable,
        "enabled",
        "fingerprint",
        "offered_fingerprint",
        "revision",
        "applied_digest",
        "behind_since",
        "attempts",
        "next_attempt",
        "last_contact",
        "last_error",
        "labhost_version",
        "driver_version",
        "storage",
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Server]:
        running = Sync.objects.filter(server=OuterRef("pk"), state=Sync.State.RUNNING)
        return (
            super()
            .get_queryset(request)
            .annotate(
                containers_there=Count("containers"),
                is_running=Exists(running),
                current=Value(keys.current_revision()),
            )
        )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        title = {"title": f"Servers; the keys are at revision {keys.current_revision()}"}
        return super().changelist_view(request, title | (extra_context or {}))

    def get_fields(self, request: HttpRequest, obj: Server | None = None) -> Any:
        return self.fields if obj is not None else ["name", *self.editable]

    def get_readonly_fields(self, request: HttpRequest, obj: Server | None = None) -> Any:
        return [] if obj is None else [name for name in self.fields or [] if name not in self.editable]

    @admin.display(description="state")
    def state(self, server: Server) -> SafeString:
        if not server.enabled:
            words, tone = "disabled", "soft"
        elif server.offered_host_key:
            words, tone = "host key changed", "bad"
        elif not server.host_key:
            words, tone = "no host key", "bad"
        elif getattr(server, "is_running", False):
            words, tone = "pushing", "soft"
        elif server.behind_since or server.applied_revision < getattr(server, "current", 0):
            words, tone = "behind", "warn"
        else:
            words, tone = "up to date", "good"
        return format_html('<span class="{}">{}</span>', tone, words)

    @admin.display(description="revision", ordering="applied_revision")
    def revision(self, server: Server) -> str:
        return f"{server.applied_revision} of {getattr(server, 'current', 0)}"

    @admin.display(description="containers", ordering="containers_there")
    def container_count(self, server: Server) -> int:
        return getattr(server, "containers_there", 0)

    def save_model(self, request: HttpRequest, obj: Server, form: Any, change: bool) -> None:
        if change:
            before = Server.objects.get(pk=obj.pk)
            inventory.move(actor=_actor(request), server=before, address=obj.address, ssh_port=obj.ssh_port)
            return
        new = inventory.add(actor=_actor(request), name=obj.name, address=obj.address, ssh_port=obj.ssh_port)
        obj.pk, obj.address = new.pk, new.address
        self.message_user(request, "Now test the connection, then accept its host key.", messages.INFO)

    def delete_model(self, request: HttpRequest, obj: Server) -> None:
        inventory.remove(actor=_actor(request), server=obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Server]) -> None:
        for server in queryset:
            inventory.remove(actor=_actor(request), server=server)

    @admin.action(description="Push keys now", permissions=["change"])
    def push_now(self, request: HttpRequest, chosen: QuerySet[Server]) -> None:
        orders = delivery.request_push(actor=_actor(request), servers=chosen)
        words = f"{len(orders)} pushes ordered; the worker makes them now."
        self.message_user(request, words, messages.SUCCESS if orders else messages.WARNING)
        if len(orders) < len(chosen):
            self.message_user(request, "Servers that are disabled were left out.", messages.WARNING)

    @admin.action(description="Test connection", permissions=["change"])
    def test_connection(self, request: HttpRequest, chosen: QuerySet[Server]) -> None:
        if len(chosen) > MAX_TESTS:
            self.message_user(request, f"Choose at most {MAX_TESTS} servers to test.", messages.ERROR)
            return
        for server in chosen:
            try:
                self.message_user(request, probe.test(actor=_actor(request), server=server), messages.SUCCESS)
            except RemoteError as error:
                self.message_user(request, error.message, messages.ERROR)

    @admin.action(description="Register a container…", permissions=["change"])
    def register_container(self, request: HttpRequest, chosen: QuerySet[Server]) -> HttpResponse | None:
        form = PersonForm(request.POST if "confirmed" in request.POST else None)
        if not form.is_valid():
            return self._ask(request, chosen, "servers/admin_register.html", "Whose container?", {"form": form})
        for server in chosen:
            try:
                registration.request(actor=_actor(request), server=server, user=form.cleaned_data["name"])
            except registration.RegistrationRefused as refused:
                self.message_user(request, str(refused), messages.ERROR)
            else:
                words = f"{form.cleaned_data['name']} on {server}: ordered; see Registrations for its progress."
                self.message_user(request, words, messages.SUCCESS)
        return None

    @admin.action(description="Accept the new host key…", permissions=["change"])
    def accept_host_key(self, request: HttpRequest, chosen: QuerySet[Server]) -> HttpResponse | None:
        offering = chosen.exclude(offered_host_key="")
        if "confirmed" not in request.POST:
            return self._ask(
                request,
                chosen,
                "servers/admin_accept_key.html",
                "Accept these host keys?",
                {"offering": offering},
            )
        for server in offering:
            shown = request.POST.get(f"fingerprint-{server.pk}", "")
            try:
                inventory.accept_offered_key(actor=_actor(request), server=server, fingerprint=shown)
            except inventory.ServerRefused as refused:
                self.message_user(request, str(refused), messages.ERROR)
            else:
                self.message_user(request, f"{server}: {shown} is accepted.", messages.SUCCESS)
        return None

    @admin.action(description="Take into service", permissions=["change"])
    def enable(self, request: HttpRequest, chosen: QuerySet[Server]) -> None:
        self._set_enabled(request, chosen, enabled=True)

    @admin.action(description="Take out of service", permissions=["change"])
    def disable(self, request: HttpRequest, chosen: QuerySet[Server]) -> None:
        self._set_enabled(request, chosen, enabled=False)

    def _set_enabled(self, request: HttpRequest, chosen: QuerySet[Server], *, enabled: bool) -> None:
        done = [inventory.set_enabled(actor=_actor(request), server=server, enabled=enabled) for server in chosen]
        words = "in service" if enabled else "out of service"
        self.message_user(request, f"{sum(done)} now {words}, {len(done) - sum(done)} already were.", messages.SUCCESS)

    def _ask(
        self, request: HttpRequest, chosen: QuerySet[Server], template: str, title: str, more: dict[str, Any]
    ) -> HttpResponse:
        """A page between choosing and acting; its form posts the same action with `confirmed`."""
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.model._meta,
            "chosen": chosen,
            "action": request.POST.get("action", ""),
            **more,
        }
        return TemplateResponse(request, template, context)


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
