"""Write SSH Public Key to IAM."""

from tests.lab.waiting import eventually
from tests.lab.walk import Flow, Walk, body

FLOW = Flow("Write SSH Public Key to IAM")


def page(walk: Walk) -> str:
    return f"/manage/ssh-key/{walk.user}"


@FLOW.step("1", "User: copy the public key and paste it on http://iam.mylab.com/manage/ssh-key/lqchen")
def paste(walk: Walk) -> str:
    answer = walk.browser.get(page(walk))
    assert answer.status_code == 200, answer.status_code
    assert "<textarea" in answer.text and 'type="password"' in answer.text
    return "the page has a field for keys and one for the password"


@FLOW.step("2", "User: enter the LDAP password of the user and hit the save button")
def save(walk: Walk) -> str:
    refused = walk.browser.submit(page(walk), keys=walk.person.public_key, password="not-" + walk.password)
    assert walk.rows("SELECT 1 FROM accounts_sshkey") == [], "a wrong password saved a key"
    assert "/log/push-keys" not in refused.url
    saved = walk.browser.submit(page(walk), keys=walk.person.public_key, password=walk.password)
    assert saved.status_code == 200 and saved.url.endswith("/log/push-keys"), (saved.status_code, saved.url)
    return "a wrong password is refused, the right one leads to the live log"


@FLOW.step("3", "IAM: the view behind that page handles the request")
def handled(walk: Walk) -> str:
    posts = [line for line in walk.lab.portal.access_log.read_text().splitlines() if f'"POST {page(walk)} ' in line]
    assert '" 302 ' in posts[-1], posts
    return "POST answered with a redirect"


@FLOW.step("4", "IAM: ask the directory if the user name and the password match")
def asked(walk: Walk) -> str:
    binds = walk.lab.directory.binds_of(walk.user)
    assert 0 in binds and 49 in binds, binds
    return "slapd logged one bind refused (49) and one accepted (0)"


@FLOW.step("5", "IAM: save the pair of the user name and the public key to its database")
def saved(walk: Walk) -> str:
    rows = walk.rows(
        "SELECT u.username, k.key_type || ' ' || k.blob FROM accounts_sshkey k"
        " JOIN accounts_user u ON u.id = k.user_id WHERE k.revoked_at IS NULL"
    )
    assert rows == [(walk.user, body(walk.person.public_key))], rows
    return f"1 key of {walk.user}, port {walk.port}, subuids from {walk.subuid}"


@FLOW.step("6", "IAM: ask the background worker to update the keys on the servers")
def pushed(walk: Walk) -> str:
    query = (
        "SELECT DISTINCT v.name FROM servers_push s JOIN servers_server v ON v.id = s.server_id"
        " WHERE s.state = 'succeeded' AND s.revision = (SELECT number FROM accounts_revision)"
    )
    eventually(lambda: len(walk.rows(query)) == 2, "a successful push to both servers")
    log = walk.browser.get("/log/push-keys")
    assert "gpu17" in log.text and "gpu18" in log.text
    return "the live log shows both servers"
