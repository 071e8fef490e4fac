"""A copy of the portal's rows, to restore later: as an administrator does with a backup of the database."""

from django.core import serializers
from django.db import models

from accounts.models import KeyRange, Revision, RevisionId, SSHKey, User
from servers.models import Confirmation, HeldBackPush, KeySnapshot, Placement, Push, Server, ServerState

# In the order in which they refer to each other. Deleted before the restore, except people, who are only changed.
MODELS: list[type[models.Model]] = [SSHKey, KeyRange, Revision, RevisionId, Server, ServerState, Push, HeldBackPush]
MODELS += [Confirmation, Placement, KeySnapshot]


class Backup:
    def __init__(self) -> None:
        everything: list[type[models.Model]] = [User, *MODELS]
        rows = [row for model in everything for row in model._default_manager.all()]
        self._text = serializers.serialize("json", rows)

    def restore(self) -> None:
        for model in reversed(MODELS):
            model._default_manager.all().delete()
        for row in serializers.deserialize("json", self._text):
            row.save()
