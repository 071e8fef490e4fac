"""Who acts in the admin, as the audit log names them."""

from django.http import HttpRequest


def actor_of(request: HttpRequest) -> str:
    """Who is noted in the audit log as the one who did it."""
    return request.user.get_username()
