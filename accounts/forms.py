"""Forms to sign in and to add keys."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpRequest, QueryDict

from accounts import backends, directory, sshkeys
from accounts.models import User
from accounts.services import people

WRONG = "Wrong user name or password, or the account is locked."


class NameField(forms.CharField):
    """A user name. An impossible name is not an error here: it is answered like a wrong password."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(label="User name", max_length=254, **kwargs)
        self.widget.attrs |= {"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"}


class PasswordField(forms.CharField):
    def __init__(self) -> None:
        super().__init__(
            label="Password",
            max_length=1024,
            strip=False,
            widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
            help_text="Your lab (LDAP) password. It is checked with the directory and never stored.",
        )

    def clean(self, value: Any) -> str:
        password: str = super().clean(value)
        if not password.strip():
            raise ValidationError("Enter your password.", code="required")
        return password


class KeysField(forms.CharField):
    """A text area of public keys; its cleaned value is a list of PublicKey."""

    def __init__(self) -> None:
        super().__init__(
            label="SSH public keys",
            strip=False,
            widget=forms.Textarea(
                attrs={
                    "rows": 5,
                    "spellcheck": "false",
                    "autocomplete": "off",
                    "placeholder": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA… you@laptop",
                }
            ),
            help_text="One key per line, from ~/.ssh/id_ed25519.pub on your computer.",
        )

    def clean(self, value: Any) -> list[sshkeys.PublicKey]:
        try:
            return sshkeys.parse(super().clean(value))
        except sshkeys.KeyRefused as refused:
            raise _as_errors(refused) from None


class PasswordForm(forms.Form):
    """Checks name and password, after all other fields are valid; `user` is then the person."""

    username = NameField()
    password = PasswordField()

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request
        self.user: User | None = None
        self.unavailable = False

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            self._check_password(cleaned["username"], cleaned["password"])
        return cleaned

    def _check_password(self, username: str, password: str) -> None:
        try:
            self.user = backends.check_password(self.request, username, password)
        except directory.DirectoryUnavailable as fault:
            self.unavailable = True
            raise ValidationError(str(fault), code="unavailable") from None
        except people.PersonRefused as refused:
            raise ValidationError(str(refused), code="refused") from None
        if self.user is None:
            self.add_error("password", ValidationError(WRONG, code="wrong"))


class SignInForm(PasswordForm):
    def get_user(self) -> User | None:
        """For Django's LoginView."""
        return self.user


class AddKeyForm(forms.Form):
    keys = KeysField()

    def add_error(self, field: Any, error: Any) -> None:
        super().add_error(field, error)
        if field == "keys":  # do not echo a refused paste: it may be a private key
            self.data = {**self.data.dict(), "keys": ""} if isinstance(self.data, QueryDict) else {}

    def refuse_keys(self, refused: sshkeys.KeyRefused) -> None:
        self.add_error("keys", _as_errors(refused))


def _as_errors(refused: sshkeys.KeyRefused) -> ValidationError:
    return ValidationError([ValidationError(reason) for reason in refused.reasons])


class PasteForm(AddKeyForm, PasswordForm):
    """Keys, with the user name and password of their owner."""

    field_order = ["username", "keys", "password"]
