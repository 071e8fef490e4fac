"""The admin site."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
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
        return super().index(request, {"panels": dashboard.panels(request)} | (extra_context or {}))

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """What this portal is about first, the parts that it is built from below."""
        apps = super().get_app_list(request, app_label)
        return sorted(apps, key=lambda app: app["app_label"] not in {"accounts", "servers"})

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """One door for everybody: the sign-in page, with its lockout and its words about the directory."""
        target = request.GET.get("next", request.path.removesuffix("login/"))
        if not request.user.is_authenticated:
            return redirect_to_login(target, settings.LOGIN_URL)
        if not self.has_permission(request):
            raise PermissionDenied("Only staff may open the administration.")
        return redirect("admin:index")
