"""The servers' part of the administration; each module registers its own."""

from django.contrib import admin
from django_q.models import Schedule
from knox.models import AuthToken

from servers.admin import held_back_pushes, keys, limits, machines, records  # noqa: F401  they register themselves

# A schedule runs any function of Python's in the worker, and a token speaks for anybody: neither is made by hand.
admin.site.unregister([Schedule, AuthToken])
