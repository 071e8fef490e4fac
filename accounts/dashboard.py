"""The accounts section of the admin's first page."""

from django.http import HttpRequest

from accounts.models import SSHKey, User
from accounts.services import numbers
from lab_iam.dashboard import Figure, Panel


def _tone(left: int) -> str:
    if left == 0:
        return "bad"
    return "warn" if left < 50 else "good"


def people_panel(request: HttpRequest) -> Panel:
    people = User.objects.filter(is_active=True)
    left = numbers.left()
    return Panel(
        "People",
        [
            Figure("active people", people.count(), "/admin/accounts/user/?is_active__exact=1"),
            Figure(
                "locked out",
                User.objects.filter(is_active=False).count(),
                "/admin/accounts/user/?is_active__exact=0",
            ),
            Figure(
                "active keys",
                SSHKey.objects.filter(revoked_revision__isnull=True).count(),
                "/admin/accounts/sshkey/",
            ),
            Figure("ports left", left.ports, "/admin/accounts/port/", tone=_tone(left.ports)),
            Figure(
                "subordinate id blocks left",
                left.subuids,
                "/admin/accounts/subuidrange/",
                tone=_tone(left.subuids),
            ),
        ],
    )
