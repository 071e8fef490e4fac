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
    people, (ports, subuids) = User.objects.active(), numbers.left()
    locked_out, keys = User.objects.filter(is_active=False), SSHKey.objects.active()
    return Section(
        "People",
        [
            Metric("Active people", people.count(), "/admin/accounts/user/?is_active__exact=1"),
            Metric("Locked out", locked_out.count(), "/admin/accounts/user/?is_active__exact=0"),
            Metric("Active keys", keys.count(), "/admin/accounts/sshkey/"),
            Metric("Ports left", ports, "/admin/accounts/port/", tone=_tone(ports)),
            Metric("Subordinate id ranges left", subuids, "/admin/accounts/subuidrange/", tone=_tone(subuids)),
        ],
    )
