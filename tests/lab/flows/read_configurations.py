"""Read Configurations on IAM."""

from tests.lab.lab import PEOPLE
from tests.lab.walk import Flow, Walk, body

FLOW = Flow("Read Configurations on IAM")


# The portal recognizes a server by its token.
CURL = """curl -sS --max-time 5 -H "Authorization: Bearer $(sed -n 's/^token = //p' /etc/lab-iam/host.conf)" """


def curl(walk: Walk, path: str) -> str:
    return walk.server.run(f"{CURL} -f http://iam.mylab.com{path}").stdout


@FLOW.step("1", "IAM reads from its database and returns the corresponding result")
def read(walk: Walk) -> str:
    user = f"/user/{walk.user}"
    assert curl(walk, f"{user}/port") == f"{walk.port}\n"
    assert curl(walk, f"{user}/subuid") == f"{walk.subuid}\n"
    assert curl(walk, f"{user}/name") == f"{PEOPLE[walk.user][0]}\n"
    assert body(curl(walk, f"{user}/.ssh/authorized_keys")) == body(walk.person.public_key)
    assert walk.user in curl(walk, "/users").split()
    config = curl(walk, f"{user}/.ssh/config")
    assert f"Port {walk.port}" in config and "Host gpu17-manage" in config
    walk.person.config.write_text(config)
    stranger = walk.server.run(f"{CURL} -o /dev/null -w '%{{http_code}}' http://iam.mylab.com/user/nobody-here/port")
    assert stranger.stdout == "404", stranger.stdout
    return f"port {walk.port}, subuid {walk.subuid}, name, keys, ~/.ssh/config, users; 404 for a stranger"
