"""The accounts section of the admin's first page."""

from django.http import HttpRequest

from accounts.models import SSHKey, User
from accounts.services import numbers
from lab_iam.dashboard import Metric, Section


def _tone(left: int) -> str:
    if left == 0:
        return "bad"
    return "warn" if left < 50 else "good"


def people_section(request: HttpRequest) -> Section:
    people = User.objects.active()
    left = numbers.left()
    return Section(
        "People",
        [
            Metric("Active people", people.count(), "/admin/accounts/user/?is_active__exact=1"),
            Metric(
                "Locked out",
                User.objects.filter(is_active=False).count(),
                "/admin/accounts/user/?is_active__exact=0",
            ),
            Metric(
                "Active keys",
                SSHKey.objects.active().count(),
                "/admin/accounts/sshkey/",
            ),
            Metric("Ports left", left.ports, "/admin/accounts/port/", tone=_tone(left.ports)),
            Metric(
                "Subordinate id ranges left",
                left.subuids,
                "/admin/accounts/subuidrange/",
                tone=_tone(left.subuids),
            ),
        ],
    )
