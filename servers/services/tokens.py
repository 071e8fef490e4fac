"""Tokens for the API. Only their digests are stored."""

from datetime import timedelta

from django.db import transaction
from knox.models import AuthToken

from accounts.models import User
from accounts.services import audit

LIFETIME = timedelta(days=365)
MAX_TOKENS = 10


class TokenRefused(Exception):
    """No token was made; the message says what to do."""


@transaction.atomic
def create(*, actor: str, user: User) -> str:
    """A new token, valid for LIFETIME; only the caller ever has its text. Raises TokenRefused."""
    if AuthToken.objects.filter(user=user).count() >= MAX_TOKENS:
        raise TokenRefused(f"You have {MAX_TOKENS} tokens. Remove one that you no longer use.")
    row, token = AuthToken.objects.create(user=user, expiry=LIFETIME)
    audit.record(actor=actor, verb="token.created", object=user.username, detail={"token": row.token_key})
    return str(token)


@transaction.atomic
def revoke(*, actor: str, user: User, token_key: str) -> bool:
    """Remove the user's token that begins with `token_key`; False if there is none."""
    count, _ = AuthToken.objects.filter(user=user, token_key=token_key).delete()
    if count:
        audit.record(actor=actor, verb="token.removed", object=user.username, detail={"token": token_key})
    return bool(count)
