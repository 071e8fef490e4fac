"""Makes the text of a coded message, for the staff or for the people who use the servers."""

import string
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from servers.message_texts import TEXTS
from servers.protocol import Message

Audience = Literal["staff", "person"]


class _Formatter(string.Formatter):
    """A parameter that is missing is a question mark: a newer or a lying host must not break a page."""

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return kwargs.get(str(key), "?")

    def format_field(self, value: Any, format_spec: str) -> str:
        one, _, many = format_spec.partition("|")
        if not many:
            return str(value)
        return f"{value} {one if value == 1 else many}"


_formatter = _Formatter()


def render(message: Message | None, audience: Audience = "staff") -> str:
    """One or two sentences; "" without a message."""
    if message is None:
        return ""
    text = TEXTS.get(message.reason)
    if text is None:  # a reason from a host program that is newer than this portal
        shown = ", ".join(f"{name} {value}" for name, value in message.params.items())
        return f"The server reported {message.reason.replace('_', ' ')}{f' ({shown})' if shown else ''}."
    if isinstance(text, tuple):
        text = text[audience == "person"]
    params = dict(message.params)
    if isinstance(cause := params.pop("cause", None), str):  # the reason of another message, with the same parameters
        params["cause"] = render(Message(cause, dict(params)), audience)
    return _formatter.vformat(text, (), params)


def phrase(message: Message | None, audience: Audience = "staff") -> str:
    """The text as part of a longer line: `gpu9: the server does not answer in time, since 10:02`."""
    text = render(message, audience).removesuffix(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
