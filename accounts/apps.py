"""Connects the accounts app at start-up."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = "People and keys"

    def ready(self) -> None:
        from accounts import checks  # noqa: F401  registers the checks
        from accounts.dashboard import people_section
        from lab_iam import dashboard

        dashboard.register(people_section, position=10)
