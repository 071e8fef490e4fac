"""Registers the project with Django."""

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class LabIamConfig(AppConfig):
    name = "lab_iam"
    verbose_name = "Lab IAM"

    def ready(self) -> None:
        from lab_iam import checks  # noqa: F401  registers the checks


class LabAdminConfig(AdminConfig):
    default_site = "lab_iam.admin.LabAdminSite"
