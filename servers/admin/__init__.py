"""The admin pages of servers; each module registers its own."""

from django.contrib import admin
from django_q.models import Schedule
from knox.models import AuthToken

from servers.admin import hand_revocations, held_back_pushes, records, servers  # noqa: F401  they register themselves

# A schedule can run any Python function in the worker and a token can act as anybody: staff create neither.
admin.site.unregister([Schedule, AuthToken])
