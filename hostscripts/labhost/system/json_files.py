"""JSON files of root's: one object per file. Fields that this version does not know are no error."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from labhost.errors import LabhostError
from labhost.system import files

MAX_SIZE = 256 * 1024 * 1024  # bytes


def load_object(path: Path, limit: int = MAX_SIZE) -> dict[str, Any] | None:
    """The object in a file, None if there is no file; LabhostError."""
    text = files.read_text(path, limit)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise damaged(path) from error
    if not isinstance(value, dict):
        raise damaged(path)
    return value


def save_object(path: Path, value: Mapping[str, Any], *, durable: bool = True) -> None:
    """Replaces the file, which only root may read; see files.write_atomic."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    files.write_atomic(path, json.dumps(value, indent=1) + "\n", mode=0o600, durable=durable)


def known_fields(kind: type[Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an object that the dataclass `kind` has fields for: a newer version may have written more."""
    return {field.name: value[field.name] for field in fields(kind) if field.name in value}


def damaged(path: Path) -> LabhostError:
    return LabhostError(f"{path} is damaged; inspect it by hand", reason="file_damaged", path=str(path))
