"""The README's pictures: My page and the first page of the admin, with some data.

`./lab pictures` sets PICTURES_FOLDER to collect them; without it they are still made and checked.
"""

import os
import struct
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import sign_in
from tests.lab.lab import Lab
from tests.lab.people import join, paste, register

SIZE = (1280, 800)


@pytest.fixture(scope="module")
def content(lab: Lab) -> None:
    """Alice: two keys, a running and a stopped container. Bob: a running one. Charlie: a key."""
    register(lab, "alice", "gpu17").ssh("gpu17-manage", timeout=120)
    register(lab, "alice", "gpu18")
    paste(lab, "alice", lab.people["alice"].make_key("workstation").replace("@laptop", "@workstation"))
    register(lab, "bob", "gpu18").ssh("gpu18-manage", timeout=120)
    join(lab, "charlie")
    # Servers report their containers with each push.
    lab.portal.manage("push_keys", "--force", "--wait")


@pytest.mark.usefixtures("content")
@pytest.mark.parametrize(
    ("name", "person", "address"), [("my-page", "alice", "/me/"), ("admin", "boss", "/admin/")], ids=["me", "admin"]
)
def test_a_picture_of_the_page_has_the_size_of_the_readme(
    page: Page, tmp_path: Path, name: str, person: str, address: str
) -> None:
    folder = Path(os.environ.get("PICTURES_FOLDER") or tmp_path)
    sign_in(page, person)
    answer = page.goto(address, wait_until="networkidle")
    assert answer is not None and answer.status == 200
    # On My page both keys and servers must be visible; the servers are below. The admin's page names no server.
    for server in page.get_by_text("gpu18").locator("visible=true").all()[:1]:
        server.evaluate("element => { document.documentElement.style.zoom = 0.9;"
                        " (element.closest('tr') ?? element).scrollIntoView({block: 'end'}); }")  # fmt: skip
    page.screenshot(path=str(folder / f"{name}.png"), animations="disabled")
    header = (folder / f"{name}.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", header[16:24]) == SIZE
