"""The pages in a real Chromium, as a person with a new key and as staff see them."""

import os
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.lab.lab import PEOPLE, Lab
from tests.lab.people import is_known
from tests.lab.walk import Walk

PICTURES = os.environ.get("PICTURES_FOLDER", "")


def picture(page: Page, name: str) -> None:
    """Screenshots to look at, saved if PICTURES_FOLDER is set."""
    if PICTURES:
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"), full_page=True)


def test_a_pasted_key_is_followed_live_to_both_servers(lab: Lab, page: Page) -> None:
    line = lab.people["bob"].make_key("from_browser")
    page.goto("/manage/ssh-key/bob")
    picture(page, "paste")
    page.get_by_label("SSH public keys").fill(line)
    page.get_by_label("Password").fill(PEOPLE["bob"][1])
    page.get_by_role("button", name="Add key").click()
    expect(page).to_have_url(f"http://{lab.portal.address}/log/push-keys")
    for server in ("gpu17", "gpu18"):
        expect(page.get_by_text(server).first).to_be_visible()
    expect(page.locator("#push-summary.good")).to_contain_text("live on 2 of 2 servers", timeout=60_000)
    assert all(is_known(server, line) for server in lab.servers.values()), "the page showed more than was true"
    assert page.locator("#push-log").get_attribute("hx-trigger") is None, "it does not stop polling"
    picture(page, "log")


def test_each_key_shows_its_state_place_by_place(lab: Lab, page: Page) -> None:
    line = lab.people["bob"].make_key("for_places")
    sign_in(page, "bob")
    page.get_by_label("SSH public keys").fill(line)
    page.get_by_role("button", name="Add key").click()
    expect(page.locator("#push-summary.good")).to_contain_text("live on 2 of 2 servers", timeout=60_000)
    page.goto("/me/")
    where = page.locator("details.where").last
    expect(where).to_contain_text("live on 2 of 2 servers")
    expect(where.get_by_role("cell", name="gpu17")).to_be_hidden()
    where.locator("summary").click()
    expect(where.get_by_role("cell", name="gpu17")).to_be_visible()
    picture(page, "me-places")


def test_a_private_key_is_refused_and_never_shown_again(page: Page) -> None:
    page.goto("/manage/ssh-key/bob")
    page.get_by_label("SSH public keys").fill("-----BEGIN OPENSSH PRIVATE KEY-----\nsecretsecret\n-----END")
    page.get_by_label("Password").fill(PEOPLE["bob"][1])
    page.get_by_role("button", name="Add key").click()
    expect(page.get_by_text("PRIVATE key")).to_be_visible()
    assert "secretsecret" not in page.content()
    picture(page, "refused")


def test_my_page_shows_port_keys_and_configuration(lab: Lab, page: Page) -> None:
    sign_in(page, "bob")
    expect(page.get_by_role("heading", name="Your SSH keys")).to_be_visible()
    expect(page.locator("#ssh-config")).to_contain_text("Host gpu17-manage")
    database = Walk(lab)
    database.user = "bob"
    expect(page.get_by_text(str(database.port), exact=True)).to_be_visible()
    expect(page.get_by_text(f"{database.subuid} to {database.subuid + 65535}")).to_be_visible()
    picture(page, "me")


def test_a_key_is_removed_after_confirmation(lab: Lab, page: Page) -> None:
    line = lab.people["bob"].make_key("to_be_removed")
    sign_in(page, "bob")
    page.get_by_label("SSH public keys").fill(line)
    page.get_by_role("button", name="Add key").click()
    page.goto("/me/")
    before = page.get_by_role("link", name="Remove").count()
    page.get_by_role("link", name="Remove").last.click()
    picture(page, "remove")
    page.get_by_role("button", name="Remove key").click()
    expect(page.get_by_role("link", name="Remove")).to_have_count(before - 1)


def test_staff_see_servers_and_people(page: Page) -> None:
    sign_in(page, "boss")
    for path in ("", "servers/server/", "servers/push/", "servers/container/", "accounts/user/", "accounts/sshkey/",
                 "servers/placement/", "servers/heldbackpush/"):  # fmt: skip
        answer = page.goto(f"/admin/{path}")
        assert answer is not None and answer.status == 200, path
        picture(page, f"admin-{path.strip('/').replace('/', '-') or 'index'}")


def test_staff_cannot_queue_arbitrary_tasks_or_create_tokens_for_others(page: Page) -> None:
    sign_in(page, "boss")
    page.goto("/admin/")
    assert page.get_by_role("link", name="Scheduled tasks").count() == 0
    assert page.get_by_role("link", name="Auth tokens").count() == 0


def test_a_wrong_password_is_reported_at_the_field(page: Page) -> None:
    page.goto("/login/")
    page.get_by_label("User name").fill("bob")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Wrong user name or password")).to_be_visible()
