"""The admin site, and what the admin pages of all apps share."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from lab_iam import dashboard


class LabAdminSite(admin.AdminSite):
    site_header = "Lab IAM"
    site_title = "Lab IAM"
    index_title = "Overview"
    site_url = "/"
    index_template = "lab_iam/admin_index.html"

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        return super().index(request, {"sections": dashboard.sections(request)} | (extra_context or {}))

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """The portal's own apps first, then the libraries that it is built from."""
        apps = super().get_app_list(request, app_label)
        return sorted(apps, key=lambda app: app["app_label"] not in {"accounts", "servers"})

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Redirect to the one sign-in page, which limits failed attempts and explains directory faults."""
        target = request.GET.get("next", request.path.removesuffix("login/"))
        if not request.user.is_authenticated:
            return redirect_to_login(target, settings.LOGIN_URL)
        if not self.has_permission(request):
            raise PermissionDenied("Only staff may open the admin.")
        return redirect("admin:index")


class ReadOnlyAdmin(admin.ModelAdmin):
    """Rows that only services write: staff can read them here, but not add, change or delete them."""

    large: Sequence[str] = ()  # columns that are not read for the list

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        everything, match = super().get_queryset(request), request.resolver_match
        is_list = request.method == "GET" and match is not None and str(match.url_name).endswith("_changelist")
        return everything.defer(*self.large) if self.large and is_list else everything

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def actor_of(request: HttpRequest) -> str:
    """The name under which the audit log records an admin action."""
    return request.user.get_username()


def badge(tone: str, text: str) -> SafeString:
    """`tone` is a class of the style sheet: good, soft, warn or bad."""
    return format_html('<span class="{}">{}</span>', tone, text)


def act_on_each(
    model_admin: admin.ModelAdmin,
    request: HttpRequest,
    rows: Iterable[Any],
    act: Callable[[Any], str],
    refusal: type[Exception],
) -> None:
    """Show for each row the text that `act` returns, or the `refusal` that it raises."""
    for row in rows:
        try:
            model_admin.message_user(request, act(row), messages.SUCCESS)
        except refusal as refused:
            model_admin.message_user(request, str(refused), messages.ERROR)


def report_changes(
    model_admin: admin.ModelAdmin, request: HttpRequest, done: Sequence[bool], nouns: tuple[str, str], what: str
) -> None:
    """Show how many rows an action has changed: `2 servers put into service, 1 unchanged.`"""
    changed, rest = sum(done), len(done) - sum(done)
    text = f"{changed} {nouns[changed != 1]} {what}{f', {rest} unchanged' if rest else ''}."
    model_admin.message_user(request, text, messages.SUCCESS if changed else messages.WARNING)


def is_confirmed(request: HttpRequest) -> bool:
    """Whether this action was posted from its confirmation page."""
    return request.POST.get("confirmed") == "yes"


def confirm_page(
    model_admin: admin.ModelAdmin, request: HttpRequest, title: str, template: str, **context: Any
) -> TemplateResponse:
    """The "are you sure" page of an action on the rows `chosen`; `template` extends lab_iam/admin_confirm.html."""
    opts = model_admin.model._meta
    context |= {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "opts": opts,
        "action": request.POST.get("action", ""),
        "list_url": f"admin:{opts.app_label}_{opts.model_name}_changelist",
    }
    return TemplateResponse(request, template, context)
