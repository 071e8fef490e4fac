"""Admin pages of servers."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, Exists, OuterRef, QuerySet, Value
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.models import User
from accounts.services import keys
from servers.admin.actor import actor_of
from servers.messages import phrase, render
from servers.models import HeldBackPush, Push, Server
from servers.services.containers import jobs
from servers.services.fleet import probe, servers
from servers.services.push import runner
from servers.services.status import key_status, overview
from servers.ssh.dial import RemoteError

MAX_KEYS = 100  # that wait, on the page of a server
MAX_TESTS = 5  # at once in a request; each takes up to probe.SECONDS


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
        return servers.canonical(self.cleaned_data["address"])


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
        "waiting",
        "why",
        "heard",
        "container_count",
        "storage",
    ]
    list_filter = ["enabled", Behind, ("offered_host_key", admin.EmptyFieldListFilter)]
    search_fields = ["name", "address"]
    form = ServerForm
    change_form_template = "servers/admin_server.html"
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
        "error",
        "reported_revision",
        "ahead_since",
        "register_outcome",
        "labhost_version",
        "driver_version",
        "storage",
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Server]:
        running = Push.objects.filter(server=OuterRef("pk"), state=Push.State.RUNNING)
        held = HeldBackPush.objects.filter(server=OuterRef("pk"), state=HeldBackPush.State.WAITING)
        return (
            super()
            .get_queryset(request)
            .annotate(
                containers_there=Count("containers"),
                is_running=Exists(running),
                is_held=Exists(held),
                keys_missing=overview.keys_pending(),
                people_failing=overview.people_failing(),
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
        elif server.ahead_since:
            words, tone = "newer than the portal", "bad"
        elif getattr(server, "is_held", False):
            words, tone = "held back", "warn"
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

    @admin.display(description="keys", ordering="keys_missing")
    def waiting(self, server: Server) -> SafeString:
        missing, failing = getattr(server, "keys_missing", 0), getattr(server, "people_failing", 0)
        if not missing and not failing:
            return format_html('<span class="{}">{}</span>', "good", "all live")
        words = [f"{missing} to come or go"] if missing else []
        words += [f"{failing} {'person' if failing == 1 else 'people'} not served"] if failing else []
        return format_html('<span class="{}">{}</span>', "warn", ", ".join(words))

    @admin.display(description="why", ordering="behind_since")
    def why(self, server: Server) -> str:
        words = phrase(server.last_error)
        if server.behind_since is not None:
            words += f"{', ' if words else ''}since {key_status.format_time(server.behind_since)}"
        if words and server.next_attempt is not None:
            words += f", next try {key_status.format_time(server.next_attempt)}"
        return words

    @admin.display(description="last error")
    def error(self, server: Server) -> str:
        return render(server.last_error)

    @admin.display(description="last contact", ordering="last_contact")
    def heard(self, server: Server) -> str:
        return key_status.format_time(server.last_contact) if server.last_contact else "never"

    @admin.display(description="containers", ordering="containers_there")
    def container_count(self, server: Server) -> int:
        return getattr(server, "containers_there", 0)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        server = Server.objects.filter(pk=object_id if object_id.isdecimal() else 0).first()
        found = key_status.pending_on(server, MAX_KEYS) if server is not None else []
        context = {"open_keys": found, "most": MAX_KEYS}
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))

    def save_model(self, request: HttpRequest, obj: Server, form: Any, change: bool) -> None:
        if change:
            before = Server.objects.get(pk=obj.pk)
            servers.change_address(actor=actor_of(request), server=before, address=obj.address, ssh_port=obj.ssh_port)
            return
        new = servers.add(actor=actor_of(request), name=obj.name, address=obj.address, ssh_port=obj.ssh_port)
        obj.pk, obj.address = new.pk, new.address
        self.message_user(request, "Now test the connection, then accept its host key.", messages.INFO)

    def delete_model(self, request: HttpRequest, obj: Server) -> None:
        servers.remove(actor=actor_of(request), server=obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Server]) -> None:
        for server in queryset:
            servers.remove(actor=actor_of(request), server=server)

    @admin.action(description="Push keys now", permissions=["change"])
    def push_now(self, request: HttpRequest, chosen: QuerySet[Server]) -> None:
        orders = runner.request_push(actor=actor_of(request), servers=chosen)
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
                self.message_user(request, probe.test(actor=actor_of(request), server=server), messages.SUCCESS)
            except RemoteError as error:
                self.message_user(request, f"{server}: {error}", messages.ERROR)

    @admin.action(description="Register a container…", permissions=["change"])
    def register_container(self, request: HttpRequest, chosen: QuerySet[Server]) -> HttpResponse | None:
        form = PersonForm(request.POST if "confirmed" in request.POST else None)
        if not form.is_valid():
            return self._ask(request, chosen, "servers/admin_register.html", "Whose container?", {"form": form})
        for server in chosen:
            try:
                jobs.request_registration(actor=actor_of(request), server=server, user=form.cleaned_data["name"])
            except jobs.JobRefused as refused:
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
                servers.accept_offered_key(actor=actor_of(request), server=server, fingerprint=shown)
            except servers.ServerRefused as refused:
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
        done = [servers.set_enabled(actor=actor_of(request), server=server, enabled=enabled) for server in chosen]
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
