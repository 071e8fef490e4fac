"""Pages to sign in, and to add and remove keys."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from accounts import names
from accounts.forms import AddKeyForm, PasteForm, SignInForm
from accounts.models import User
from accounts.services import keys
from accounts.sshkeys import KeyRefused

_page = require_http_methods(["GET", "HEAD", "POST"])
_secret = sensitive_post_parameters("password", "keys")


@never_cache
@_page
@_secret
def home(request: HttpRequest) -> HttpResponse:
    """The first page: paste keys with user name and password, without signing in."""
    return _paste(request, fixed_name="")


@never_cache
@_page
@_secret
def manage_ssh_key(request: HttpRequest, name: str) -> HttpResponse:
    """The same for one user name. The page looks the same whether the name exists or not."""
    try:
        return _paste(request, fixed_name=names.clean(name))
    except names.NameRefused:
        raise Http404("This is not a user name.") from None


def _paste(request: HttpRequest, fixed_name: str) -> HttpResponse:
    if request.method != "POST":
        return _paste_page(request, PasteForm(request, initial={"username": fixed_name}), fixed_name)
    data = request.POST.copy()
    if fixed_name:
        data["username"] = fixed_name
    form = PasteForm(request, data)
    if form.is_valid() and form.user is not None:
        try:
            done = keys.add_keys(actor=form.user.username, user=form.user, pasted=form.cleaned_data["keys"])
        except KeyRefused as refused:
            form.refuse_keys(refused)
        else:
            # This browser may now watch the push; the session id that it had before may be known to others.
            request.session.cycle_key()
            return _saved(request, form.user, done)
    return _paste_page(request, form, fixed_name)


def _paste_page(request: HttpRequest, form: PasteForm, fixed_name: str) -> HttpResponse:
    context = {"form": form, "fixed_name": fixed_name}
    return render(request, "accounts/paste.html", context, status=503 if form.unavailable else 200)


def _saved(request: HttpRequest, user: User, done: keys.AddedKeys) -> HttpResponse:
    for key in done.added:
        messages.success(request, f"Key added: {key.fingerprint} {key.comment}".strip())
    for key in done.already:
        messages.info(request, f"You already had this key: {key.fingerprint} {key.comment}".strip())
    request.session["pasted_as"] = user.username
    return redirect("push-log")


@method_decorator([never_cache, sensitive_post_parameters("password")], name="dispatch")
class SignIn(LoginView):
    template_name = "accounts/sign_in.html"
    authentication_form = SignInForm  # type: ignore[assignment]
    redirect_authenticated_user = True

    def form_invalid(self, form: Any) -> HttpResponse:
        response = super().form_invalid(form)
        response.status_code = 503 if form.unavailable else 200
        return response


@never_cache
@login_required
@_page
@_secret
def add_key(request: HttpRequest) -> HttpResponse:
    user = signed_in(request)
    form = AddKeyForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            done = keys.add_keys(actor=user.username, user=user, pasted=form.cleaned_data["keys"])
        except KeyRefused as refused:
            form.refuse_keys(refused)
        else:
            return _saved(request, user, done)
    return render(request, "accounts/add_key.html", {"add_key_form": form})


@never_cache
@login_required
@_page
def remove_key(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask (GET), then remove (POST). Another person's key gives 404."""
    user = signed_in(request)
    key = get_object_or_404(user.ssh_keys.active(), pk=pk)
    if request.method != "POST":
        others = user.ssh_keys.active().exclude(pk=key.pk)
        return render(request, "accounts/remove_key.html", {"key": key, "is_last": not others.exists()})
    if keys.revoke_key(actor=user.username, key=key):
        messages.success(request, f"Key removed: {key.fingerprint} {key.comment}".strip())
    return redirect(settings.LOGIN_REDIRECT_URL)


def signed_in(request: Any) -> User:
    """In a page that requires a sign-in."""
    assert isinstance(request.user, User)  # noqa: S101 - login_required
    return request.user
