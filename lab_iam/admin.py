"""The admin site, and what the admin pages of all apps share."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse

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

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def actor_of(request: HttpRequest) -> str:
    """The name under which the audit log records an admin action."""
    return request.user.get_username()


def is_confirmed(request: HttpRequest) -> bool:
    """Whether this action was posted from its confirmation page."""
    return request.POST.get("confirmed") == "yes"


def confirm_page(
    model_admin: admin.ModelAdmin, request: HttpRequest, title: str, template: str, **context: Any
) -> TemplateResponse:
    """The "are you sure" page of an admin action; its form posts the same action with `confirmed`.

    `template` extends lab_iam/admin_confirm.html; `chosen` in the context are the rows to act on.
    """
    opts = model_admin.model._meta
    context |= {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "opts": opts,
        "action": request.POST.get("action", ""),
        "list_url": f"admin:{opts.app_label}_{opts.model_name}_changelist",
    }
    return TemplateResponse(request, template, context)
