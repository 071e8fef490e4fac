"""A column that holds a coded message, and a constraint."""

from typing import Any

from django.db import models

from servers.protocol import Message


def known(name: str, **columns: list[str]) -> models.CheckConstraint:
    """These columns have one of these values."""
    return models.CheckConstraint(condition=models.Q(**{f"{key}__in": columns[key] for key in columns}), name=name)


class MessageField(models.JSONField):
    """A Message as JSON, None as NULL: ask with `__isnull`, or for `__reason`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"null": True, "blank": True, "editable": False} | options)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        found = super().from_db_value(value, expression, connection)
        return Message.from_json(found) if isinstance(found, dict) else found

    def to_python(self, value: Any) -> Any:
        """Of a fixture, as loaddata reads it."""
        return Message.from_json(value) if isinstance(value, dict) else value

    def value_to_string(self, obj: models.Model) -> Any:
        """For a fixture, as dumpdata writes it."""
        return self.get_prep_value(self.value_from_object(obj))

    def get_prep_value(self, value: Any) -> Any:
        return value.as_json() if isinstance(value, Message) else value
