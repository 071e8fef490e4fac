"""Creates the person's account in a new root file system, in a run of the container without boot, network or mounts.

LXC starts the container with a program that only waits as its init; processes attached to it do the work. So nothing
of the container runs or listens before it has the right account and keys.
"""

from labhost import lxc
from labhost.container import lxc_config
from labhost.errors import LabhostError
from labhost.host import Host, User, locks, user_state
from labhost.keys import key_files, set_keys
from labhost.keys.public_keys import render_container
from labhost.storage import drivers
from labhost.system import Account, files

SECONDS = 60
UID = 1000
_WAITING = ["/bin/sh", "-c", "while :; do sleep 3600; done"]
_ACCOUNT = """
set -eu
name=$1 server=$2 nameserver=$3 uid=$4
rm -f /etc/resolv.conf
printf 'nameserver %s\\n' "$nameserver" > /etc/resolv.conf
printf '%s\\n' "$server" > /etc/hostname
grep -qs '^127.0.1.1' /etc/hosts || printf '127.0.0.1 localhost\\n127.0.1.1 %s\\n' "$server" >> /etc/hosts
if id -u "$name" > /dev/null 2>&1; then
  usermod --append --groups sudo -- "$name"
else
  useradd --create-home --uid "$uid" --user-group --groups sudo --shell /bin/bash --password '*' -- "$name"
fi
sudoers=/etc/sudoers.d/lab-iam
[ -e $sudoers ] || (umask 0227; echo '%sudo ALL=(ALL:ALL) NOPASSWD: ALL' > $sudoers)
# Random, unlike what systemd would choose: in a virtual machine that is the same for all containers.
[ -s /etc/machine-id ] || tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id
# Every client since 2014 knows these types. Generating an RSA key would take a second.
for type in ed25519 ecdsa; do
  key=/etc/ssh/ssh_host_${type}_key
  [ -s $key ] || ssh-keygen -q -t $type -N '' -f $key
done
id -u "$name"
id -g "$name"
"""


def start(host: Host, user: User, account: Account) -> None:
    drivers.driver_of(host, user).attach(user, account)
    if not lxc.is_running(host, account):
        path = lxc.container_folder(host, user.name) / "config.provision"
        files.write_atomic(path, lxc_config.render_provisioning(host, user), mode=0o644)
        lxc.start_user_manager(host, account)
        lxc.start(host, account, config=path, init=_WAITING)


def create_account(host: Host, user: User, account: Account) -> None:
    """The account, its groups and keys; safe to repeat. The container is running, with any init."""
    values = [user.name, host.config.server.name, host.config.container.gateway, str(UID)]
    result = lxc.attach(host, account, ["/bin/sh", "-c", _ACCOUNT, "sh", *values], timeout=SECONDS)
    result.check("the account in the container cannot be created")
    user.container_uid, user.container_gid = _ids(result.out)
    with locks.keys(host):
        key_files.write_in_container(host, user, "config", user.ssh_config)
        key_files.write_in_container(host, user, "authorized_keys", render_container(set_keys.current_keys(host, user)))
        user.needs_provisioning = False
        user_state.save_user(host, user)


def stop(host: Host, account: Account) -> None:
    """Stops it at once: nothing runs in it that could lose data."""
    if lxc.is_running(host, account):
        lxc.stop(host, account, grace=0)


def provision_system(host: Host, user: User, account: Account) -> None:
    """All three, for a root file system that replaced another. The container is stopped before and after."""
    stop(host, account)
    start(host, user, account)
    try:
        create_account(host, user, account)
    finally:
        stop(host, account)


def _ids(out: bytes) -> tuple[int, int]:
    words = out.split()[-2:]
    if len(words) == 2 and all(word.isdigit() and len(word) < 6 and 0 < int(word) < 65534 for word in words):
        return int(words[0]), int(words[1])
    text = "the account in the container cannot be created: it has no ids"
    raise LabhostError(text, reason="container_account_failed")
