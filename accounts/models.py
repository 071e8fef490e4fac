"""People, their SSH keys and permanently allocated numbers; which keys servers should hold; the audit log."""

from collections.abc import Iterator
from typing import Any, ClassVar, Never

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts import names
from accounts.sshkeys import PublicKey


class UserManager(BaseUserManager["User"]):
    def active(self) -> "models.QuerySet[User]":
        """People who are not locked out."""
        return self.filter(is_active=True)

    def create_user(self, username: str, password: str | None = None, **fields: Any) -> "User":
        """A person of the directory (without a password here), or with `password` a local account."""
        user = self.model(username=names.clean(username), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, username: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(username, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """A person, identified by `directory_id` and not by name; null means a local account of the staff."""

    username = models.CharField(
        "name",
        max_length=names.MAX_LENGTH,
        unique=True,
        validators=[RegexValidator(names.PATTERN, f"Use {names.RULE}.")],
    )
    display_name = models.CharField("full name", max_length=200, blank=True)
    directory_id = models.CharField(
        "directory account", max_length=64, unique=True, null=True, blank=True, editable=False
    )
    is_active = models.BooleanField("active", default=True)
    is_staff = models.BooleanField("staff", default=False)
    date_joined = models.DateTimeField(default=timezone.now, editable=False)
    # The last revision that changed which keys of this person servers should hold.
    keys_revision = models.PositiveBigIntegerField(default=0, editable=False, db_index=True)
    # How often all their sessions were ended; sessions from before are refused.
    sessions_ended = models.PositiveIntegerField(default=0, editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "username"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        verbose_name = "person"
        verbose_name_plural = "people"
        ordering = ["username"]
        constraints = [
            models.CheckConstraint(
                condition=Q(username__regex=names.PATTERN) & ~Q(username__in=sorted(names.RESERVED)),
                name="user_name_is_linux_safe",
            ),
            models.CheckConstraint(
                condition=Q(directory_id__isnull=True) | ~Q(directory_id=""), name="user_directory_id_not_blank"
            ),
        ]

    def __str__(self) -> str:
        return self.username

    def get_full_name(self) -> str:
        return self.display_name or self.username

    @property
    def is_local(self) -> bool:
        return self.directory_id is None

    def get_session_auth_hash(self) -> str:
        return f"{super().get_session_auth_hash()}-{self.sessions_ended}"

    def get_session_auth_fallback_hash(self) -> Iterator[str]:
        return (f"{one}-{self.sessions_ended}" for one in super().get_session_auth_fallback_hash())


class SSHKeyQuerySet(models.QuerySet["SSHKey"]):
    def active(self) -> "SSHKeyQuerySet":
        return self.filter(revoked_at__isnull=True)

    def revoked(self) -> "SSHKeyQuerySet":
        return self.filter(revoked_at__isnull=False)

    def wanted(self) -> "SSHKeyQuerySet":
        """Keys that every server should hold now: active ones of active people who have a port."""
        return self.active().filter(user__is_active=True, user__port__isnull=False)


class SSHKey(models.Model):
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="ssh_keys", verbose_name="person")
    key_type = models.CharField("type", max_length=64)
    blob = models.TextField(help_text="The key itself in canonical base64.")
    fingerprint = models.CharField(max_length=64)
    comment = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField("added", default=timezone.now)
    revoked_at = models.DateTimeField("removed", null=True, blank=True)

    objects: ClassVar[SSHKeyQuerySet] = SSHKeyQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        verbose_name = "SSH key"
        ordering = ["user", "created_at", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["fingerprint"], condition=Q(revoked_at__isnull=True), name="key_active_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.fingerprint} ({self.comment or self.key_type})"

    @property
    def is_active(self) -> bool:
        return self.revoked_at is None

    @property
    def public_key(self) -> PublicKey:
        return PublicKey(self.key_type, self.blob, self.comment)


def wanted_between(first: Any, last: Any) -> Q:
    """Ranges of the keys that servers should hold at one of the revisions `first` to `last`, numbers or expressions."""
    return (Q(until__isnull=True) | Q(until__gt=first)) & Q(start__lte=last)


class KeyRangeQuerySet(models.QuerySet["KeyRange"]):
    def open(self) -> "KeyRangeQuerySet":
        """Of the keys that servers should hold now."""
        return self.filter(until__isnull=True)

    def wanted_at(self, revision: int) -> "KeyRangeQuerySet":
        """Of the keys that servers should hold at this revision."""
        return self.filter(wanted_between(revision, revision))


class KeyRange(models.Model):
    """Servers should hold this key from the revision `start` until before `until`; null while they still should.

    Written by `accounts.services.revision` in the transaction that raises the revision.
    """

    key = models.ForeignKey(SSHKey, on_delete=models.CASCADE, related_name="ranges")
    start = models.PositiveBigIntegerField(db_index=True)
    until = models.PositiveBigIntegerField(null=True, blank=True, db_index=True)
    started_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True, db_index=True)
    # A person has decided exactly this: staff behind a confirmation page, or the owner of the key.
    confirmed = models.BooleanField("removal confirmed", default=False)

    objects: ClassVar[KeyRangeQuerySet] = KeyRangeQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        ordering = ["key", "start"]
        constraints = [
            models.UniqueConstraint(fields=["key"], condition=Q(until__isnull=True), name="key_range_open_once"),
            models.CheckConstraint(
                condition=Q(until__isnull=True, ended_at__isnull=True)
                | Q(until__gt=models.F("start"), ended_at__isnull=False),
                name="key_range_ends_after_its_start",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key.fingerprint} from {self.start}" + (f" until {self.until}" if self.until else "")

    def covers(self, first: int, last: int) -> bool:
        """Whether servers should hold the key at one of these revisions or more; see `wanted_between`."""
        return self.start <= last and (self.until is None or self.until > first)


class PermanentAllocation(models.Model):
    """A number that remains after its user is deleted, so that it is never issued again."""

    username = models.CharField("issued to", max_length=names.MAX_LENGTH)
    issued_at = models.DateTimeField("issued", default=timezone.now)

    class Meta:
        abstract = True

    def delete(self, *args: Any, **kwargs: Any) -> Never:
        raise TypeError("Issued numbers are never deleted: otherwise they could be issued again.")


class Port(PermanentAllocation):
    number = models.PositiveIntegerField(primary_key=True)
    user = models.OneToOneField(
        User, on_delete=models.SET_NULL, null=True, blank=True, related_name="port", verbose_name="person"
    )

    class Meta:
        ordering = ["number"]
        constraints = [models.CheckConstraint(condition=Q(number__range=(1024, 65535)), name="port_is_unprivileged")]

    def __str__(self) -> str:
        return str(self.number)


class SubuidRange(PermanentAllocation):
    """The block `start` to `start + SUBUID_COUNT - 1` of subordinate user and group ids."""

    start = models.PositiveBigIntegerField(primary_key=True)
    user = models.OneToOneField(
        User, on_delete=models.SET_NULL, null=True, blank=True, related_name="subuids", verbose_name="person"
    )

    class Meta:
        verbose_name = "subordinate id range"
        ordering = ["start"]
        constraints = [
            models.CheckConstraint(condition=Q(start__range=(65536, 2**32 - 65536 - 1)), name="subuids_are_valid_ids")
        ]

    def __str__(self) -> str:
        return str(self.start)


class Revision(models.Model):
    """One row: every change of the keys that servers should hold raises the number. Its lock guards all numbers."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    number = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="revision_is_one_row")]

    def __str__(self) -> str:
        return str(self.number)


class RevisionId(models.Model):
    """The random id of one revision. A number alone is no past: after a restored backup it is given again."""

    number = models.PositiveBigIntegerField(primary_key=True)
    value = models.CharField(max_length=32, unique=True)

    def __str__(self) -> str:
        return f"{self.number}: {self.value}"


def _refuse(*args: Any, **kwargs: Any) -> Never:
    raise TypeError("The audit log is append only.")


class AppendOnly(models.QuerySet["AuditEvent"]):
    update = delete = _refuse


class AuditEvent(models.Model):
    at = models.DateTimeField(default=timezone.now, editable=False, db_index=True)
    actor = models.CharField(max_length=64)
    verb = models.CharField(max_length=64, db_index=True)
    object = models.CharField(max_length=200, db_index=True)
    detail = models.JSONField(default=dict, blank=True)

    objects = AppendOnly.as_manager()

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.actor} {self.verb} {self.object}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            _refuse()
        super().save(*args, **kwargs)

    delete = _refuse
