"""People, their SSH keys and their permanently allocated numbers; the revision; the audit log."""

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
    def create_user(self, username: str, password: str | None = None, **fields: Any) -> "User":
        """A person of the directory (no password here), or with `password` a local account."""
        user = self.model(username=names.clean(username), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, username: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(username, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """Who a person is. `directory_id` decides, not the name: null means a local account of the staff."""

    username = models.CharField(
        "name",
        max_length=names.MAX_LENGTH,
        unique=True,
        validators=[RegexValidator(names.PATTERN, f"Use {names.RULE}.")],
    )
    display_name = models.CharField("full name", max_length=200, blank=True)
    directory_id = models.CharField(max_length=64, unique=True, null=True, blank=True, editable=False)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)
    date_joined = models.DateTimeField(default=timezone.now, editable=False)
    keys_revision = models.PositiveBigIntegerField(
        default=0,
        editable=False,
        db_index=True,
        help_text="The last one that changed what servers hold of this person.",
    )

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
                condition=Q(directory_id__isnull=True) | ~Q(directory_id=""),
                name="user_directory_id_not_blank",
            ),
        ]

    def __str__(self) -> str:
        return self.username

    def get_full_name(self) -> str:
        return self.display_name or self.username

    def get_short_name(self) -> str:
        return self.username

    @property
    def is_local(self) -> bool:
        return self.directory_id is None


class SSHKey(models.Model):
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="ssh_keys", verbose_name="person")
    key_type = models.CharField("type", max_length=64)
    blob = models.TextField(help_text="The key itself in canonical base64.")
    fingerprint = models.CharField(max_length=64)
    comment = models.CharField(max_length=200, blank=True)
    added_revision = models.PositiveBigIntegerField()
    revoked_revision = models.PositiveBigIntegerField(null=True, blank=True)
    created_at = models.DateTimeField("added", default=timezone.now)
    revoked_at = models.DateTimeField("removed", null=True, blank=True)

    class Meta:
        verbose_name = "SSH key"
        ordering = ["user", "created_at", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["fingerprint"], condition=Q(revoked_revision__isnull=True), name="key_active_once"
            ),
            models.CheckConstraint(
                condition=Q(revoked_revision__isnull=True, revoked_at__isnull=True)
                | Q(
                    revoked_revision__isnull=False,
                    revoked_at__isnull=False,
                    revoked_revision__gt=models.F("added_revision"),
                ),
                name="key_revoked_after_added",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.fingerprint} ({self.comment or self.key_type})"

    @property
    def is_active(self) -> bool:
        return self.revoked_revision is None

    @property
    def public_key(self) -> PublicKey:
        return PublicKey(self.key_type, self.blob, self.comment)


class PermanentAllocation(models.Model):
    """A row that outlives its user as a tombstone, so that what it stands for is never issued again."""

    username = models.CharField("issued to", max_length=names.MAX_LENGTH)
    issued_at = models.DateTimeField("issued", default=timezone.now)

    class Meta:
        abstract = True

    def delete(self, *args: Any, **kwargs: Any) -> Never:
        raise TypeError("Issued numbers are kept for ever: deleting one would allow it to be issued again.")


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
    """The block start .. start + SUBUID_COUNT - 1 of subordinate user and group ids."""

    start = models.PositiveBigIntegerField(primary_key=True)
    user = models.OneToOneField(
        User, on_delete=models.SET_NULL, null=True, blank=True, related_name="subuids", verbose_name="person"
    )

    class Meta:
        verbose_name = "subordinate id block"
        ordering = ["start"]
        constraints = [
            models.CheckConstraint(condition=Q(start__range=(65536, 2**32 - 65536 - 1)), name="subuids_are_valid_ids")
        ]

    def __str__(self) -> str:
        return str(self.start)


class Revision(models.Model):
    """One row: the number that rises with every change to any active key. Its lock guards all numbers."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    number = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="revision_is_one_row")]

    def __str__(self) -> str:
        return str(self.number)


class AppendOnly(models.QuerySet["AuditEvent"]):
    def update(self, **kwargs: Any) -> Never:
        raise TypeError("The audit log is append only.")

    def delete(self) -> Never:
        raise TypeError("The audit log is append only.")


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
            raise TypeError("The audit log is append only.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Never:
        raise TypeError("The audit log is append only.")
