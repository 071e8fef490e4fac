"""`{{ row.error|message }}`: the text of a coded message, for staff or, with `:"person"`, for everybody."""

from django import template

from servers import messages
from servers.protocol import Message

register = template.Library()


@register.filter
def message(value: object, audience: messages.Audience = "staff") -> str:
    """`value` is a Message or its JSON."""
    return messages.render(value if isinstance(value, Message) else Message.from_json(value), audience)
