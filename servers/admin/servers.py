"""Admin pages of servers."""

from collections.abc import Callable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import display_for_value, label_for_field
from django.core.exceptions import ValidationError
from django.db.models import Count, Exists, OuterRef, QuerySet, Value
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import pluralize
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.models import User
from accounts.services import keys
from lab_iam.admin import act_on_each, actor_of, badge, confirm_page, is_confirmed, report_changes
from servers import disks
from servers.admin.adoption import adopt
from servers.messages import phrase, render
from servers.models import HandRevocation, HeldBackPush, Push, Server, ServerState
from servers.protocol import Message
from servers.services.containers import jobs
from servers.services.fleet import deployment, inspection, servers
from servers.services.push import runner
from servers.services.status import key_status, overview
from servers.ssh.dial import RemoteError

MAX_KEYS = 100  # pending or removing, on the page of a server
MAX_TESTS = 5  # in one request; each takes up to inspection.TEST_SECONDS


class PersonForm(forms.Form):
    """Asks for the person to register."""

    name = forms.CharField(label="User name", max_length=32)

    def clean_name(self) -> User:
        user = User.objects.active().filter(username=self.cleaned_data["name"].lower()).first()
        if user is None:
            raise ValidationError("There is no active person with this name.")
        return user


class ServerForm(forms.ModelForm):
    def clean_address(self) -> str:
        return servers.canonical(self.cleaned_data["address"])


class Behind(admin.SimpleListFilter):
    title = "keys"
    parameter_name = "keys"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("behind", "behind"), ("current", "up to date")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Server]) -> QuerySet[Server]:
        current = {"state__applied_revision__gte": keys.current_revision()}
        current |= dict.fromkeys(["state__behind_since__isnull", "state__ahead_since__isnull"], True)
        if self.value() == "behind":
            return queryset.exclude(**current)
        return queryset.filter(**current) if self.value() == "current" else queryset


def _from_state(name: str) -> Callable[[Server], Any]:
    """A read-only field on the page of a server: this column of its state."""

    @admin.display(description=str(label_for_field(name, ServerState)))
    def shown(server: Server) -> Any:
        value = getattr(server.state, name)
        return render(value) if isinstance(value, Message) else display_for_value(value, "-")

    shown.__name__ = name
    return shown


STATE_FIELDS = ["applied_digest", "behind_since", "attempts", "next_attempt", "last_contact", "last_error"]
STATE_FIELDS += [
    "reported_revision",
    "ahead_since",
    "adopted_id",
    "register_outcome",
    "labhost_version",
    "driver_version",
    "storage",
]


@admin.register(Server)
class ServerAdmin(admin.ModelAdmin):
    facts = ["contact", "container_count", "disk", "state__storage", "programs"]
    list_display = ["name", "address", "shown_state", "revision", "waiting", "why", *facts]
    list_filter = ["enabled", Behind, ("offered_host_key", admin.EmptyFieldListFilter)]
    search_fields = ["name", "address"]
    form = ServerForm
    change_form_template = "servers/admin_server.html"
    actions = ["push_now", "test_connection", "register_container", "accept_host_key", adopt, "enable", "disable"]
    editable = ["address", "ssh_port"]
    shown = [
        "fingerprint",
        "offered_fingerprint",
        "revision",
        *(_from_state(name) for name in STATE_FIELDS),
        "disk_space",
        "programs",
        "revoked_there",
    ]
    fields: ClassVar[list[Any]] = ["name", *editable, "enabled", *shown]

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
                keys_pending=overview.keys_pending(),
                people_failing=overview.people_failing(),
                current=Value(keys.current_revision()),
            )
        )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        title = {"title": f"Servers (current revision: {keys.current_revision()})"}
        return super().changelist_view(request, title | (extra_context or {}))

    def get_fields(self, request: HttpRequest, obj: Server | None = None) -> Any:
        return self.fields if obj is not None else ["name", *self.editable]

    def get_readonly_fields(self, request: HttpRequest, obj: Server | None = None) -> Any:
        return [] if obj is None else [name for name in self.fields or [] if name not in self.editable]

    @admin.display(description="state")
    def shown_state(self, server: Server) -> SafeString:
        states = [
            (not server.enabled, "soft", "out of service"),
            (server.offered_host_key, "bad", "host key changed"),
            (not server.host_key, "bad", "no host key"),
            (server.state.ahead_since, "bad", "ahead of the database"),
            (getattr(server, "is_held", False), "warn", "held back"),
            (getattr(server, "is_running", False), "soft", "pushing"),
            (server.state.behind_since, "warn", "behind"),
            (server.state.applied_revision < getattr(server, "current", 0), "warn", "behind"),
            (True, "good", "up to date"),
        ]
        return next(badge(tone, text) for applies, tone, text in states if applies)

    @admin.display(description="revision", ordering="state__applied_revision")
    def revision(self, server: Server) -> str:
        if server.state.ahead_since:
            return f"{server.state.reported_revision}, not in this database"
        return f"{server.state.applied_revision} of {getattr(server, 'current', 0)}"

    @admin.display(description="keys", ordering="keys_pending")
    def waiting(self, server: Server) -> SafeString:
        missing, failing = getattr(server, "keys_pending", 0), getattr(server, "people_failing", 0)
        if not missing and not failing:
            return badge("good", "all live") if server.enabled else badge("soft", "-")
        parts = [f"{missing} change{pluralize(missing)} pending"] if missing else []
        parts += [f"failed for {failing} {'person' if failing == 1 else 'people'}"] if failing else []
        return badge("warn", ", ".join(parts))

    @admin.display(description="why", ordering="state__behind_since")
    def why(self, server: Server) -> str:
        text = phrase(server.state.last_error)
        if server.state.behind_since is not None:
            text += f"{', ' if text else ''}since {key_status.format_time(server.state.behind_since)}"
        if text and server.state.next_attempt is not None:
            text += f", next retry {key_status.format_time(server.state.next_attempt)}"
        return text

    @admin.display(description="keys revoked there by hand")
    def revoked_there(self, server: Server) -> SafeString:
        listed = HandRevocation.objects.filter(server=server, is_listed=True)
        waiting = listed.filter(state=HandRevocation.State.WAITING).count()
        if not waiting:
            return badge("good", f"{len(listed)} reported, none waits for you") if listed else badge("soft", "none")
        url = reverse("admin:servers_handrevocation_changelist") + f"?server__id__exact={server.pk}"
        return format_html('<a href="{}" class="bad">{} waiting for your decision</a>', url, waiting)

    @admin.display(description="host programs", ordering="state__labhost_build")
    def programs(self, server: Server) -> SafeString:
        if not server.state.labhost_version:
            return badge("soft", "unknown")
        if not server.token_digest:
            return badge("warn", "no token")  # so it cannot read the plain-text pages
        is_current = server.state.labhost_build == deployment.build()
        return badge("good", "current") if is_current else badge("warn", "outdated")

    @admin.display(description="disks")
    def disk(self, server: Server) -> SafeString:
        if not server.state.disks:
            return badge("soft", "unknown")
        low = disks.shortages(server.state.disks)
        return badge("bad", "; ".join(low)) if low else badge("good", "enough space")

    @admin.display(description="disks")
    def disk_space(self, server: Server) -> str:
        return disks.summary(server.state.disks) or "-"

    @admin.display(description="last contact", ordering="state__last_contact")
    def contact(self, server: Server) -> str:
        return key_status.format_time(server.state.last_contact) if server.state.last_contact else "never"

    @admin.display(description="containers", ordering="containers_there")
    def container_count(self, server: Server) -> int:
        return getattr(server, "containers_there", 0)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        server = self.get_object(request, object_id)
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
        self.message_user(request, "Next: test the connection, then accept its host key.", messages.INFO)

    def delete_model(self, request: HttpRequest, obj: Server) -> None:
        servers.remove(actor=actor_of(request), server=obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Server]) -> None:
        for server in queryset:
            servers.remove(actor=actor_of(request), server=server)

    @admin.action(description="Push keys now", permissions=["change"])
    def push_now(self, request: HttpRequest, chosen: QuerySet[Server]) -> None:
        count = len(runner.request_push(actor=actor_of(request), servers=chosen))
        text = f"{count} push{pluralize(count, 'es')} queued."
        self.message_user(request, text, messages.SUCCESS if count else messages.WARNING)
        if count < len(chosen):
            self.message_user(request, "Servers that are out of service were skipped.", messages.WARNING)

    @admin.action(description="Test connection", permissions=["change"])
    def test_connection(self, request: HttpRequest, chosen: QuerySet[Server]) -> None:
        if len(chosen) > MAX_TESTS:
            self.message_user(request, f"Select at most {MAX_TESTS} servers to test.", messages.ERROR)
            return
        for server in chosen:
            try:
                self.message_user(request, inspection.test(actor=actor_of(request), server=server), messages.SUCCESS)
            except RemoteError as error:
                self.message_user(request, f"{server}: {error}", messages.ERROR)

    @admin.action(description="Register a person…", permissions=["change"])
    def register_container(self, request: HttpRequest, chosen: QuerySet[Server]) -> HttpResponse | None:
        form = PersonForm(request.POST if is_confirmed(request) else None)
        if not form.is_valid():
            context = {"chosen": chosen, "form": form}
            return confirm_page(self, request, "Register a person", "servers/admin_register.html", **context)
        user = form.cleaned_data["name"]

        def register(server: Server) -> str:
            jobs.request_registration(actor=actor_of(request), server=server, user=user)
            return f"{user} on {server}: registration queued; see its container job."

        act_on_each(self, request, chosen, register, jobs.JobRefused)
        return None

    @admin.action(description="Accept the new host key…", permissions=["change"])
    def accept_host_key(self, request: HttpRequest, chosen: QuerySet[Server]) -> HttpResponse | None:
        offering = chosen.exclude(offered_host_key="")
        if not is_confirmed(request):
            template = "servers/admin_accept_key.html"
            return confirm_page(self, request, "Accept these host keys?", template, chosen=offering)

        def accept(server: Server) -> str:
            shown = request.POST.get(f"fingerprint-{server.pk}", "")
            servers.accept_offered_key(actor=actor_of(request), server=server, fingerprint=shown)
            return f"{server}: host key {shown} accepted."

        act_on_each(self, request, offering, accept, servers.ServerRefused)
        return None

    @admin.action(description="Put into service", permissions=["change"])
    def enable(self, request: HttpRequest, chosen: QuerySet[Server]) -> None:
        self._set_enabled(request, chosen, enabled=True)

    @admin.action(description="Take out of service", permissions=["change"])
    def disable(self, request: HttpRequest, chosen: QuerySet[Server]) -> None:
        self._set_enabled(request, chosen, enabled=False)

    def _set_enabled(self, request: HttpRequest, chosen: QuerySet[Server], *, enabled: bool) -> None:
        done = [servers.set_enabled(actor=actor_of(request), server=server, enabled=enabled) for server in chosen]
        what = "put into service" if enabled else "taken out of service"
        report_changes(self, request, done, ("server", "servers"), what)
