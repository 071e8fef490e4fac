#!/bin/bash -p
# /home/register/register.bash: the login shell of `register`. sshd runs it with the forced command of the key that was used:
#   register.bash -c '/home/register/register.bash NAME', and the person's request in SSH_ORIGINAL_COMMAND.
# The key proves NAME; the request must be that name, and the key still be NAME's: a connection may outlive its key.
set -euf -o pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
umask 022

refuse() {
  echo "$1" >&2
  exit 2
}

# key_is_live NAME: whether the key that opened this connection (SSH_USER_AUTH, from sshd) is in NAME's lines.
key_is_live() {
  local method type blob
  [[ -r ${SSH_USER_AUTH-} ]] || return 1
  while read -r method type blob; do
    [[ $method == publickey ]] || continue
    /usr/bin/grep -qxF -- "restrict,command=\"/home/register/register.bash $1\" $type $blob" ~/.ssh/authorized_keys && return
  done <"$SSH_USER_AUTH"
  return 1
}

main() {
  local forced name requested=${SSH_ORIGINAL_COMMAND-}
  [[ $# == 2 && $1 == -c ]] || refuse "usage: ssh register@SERVER-manage YOURNAME"
  forced=$2
  [[ $forced =~ ^/home/register/register\.bash\ ([a-z_][a-z0-9_-]{0,31})$ ]] || refuse "this account only registers containers"
  name=${BASH_REMATCH[1]}
  [[ -n $requested ]] || refuse "usage: ssh register@SERVER-manage $name"
  if [[ $requested != "$name" ]]; then
    [[ $requested =~ ^[a-z_][a-z0-9_-]{0,31}$ ]] || refuse "not a user name; use: ssh register@SERVER-manage $name"
    /usr/bin/logger -p auth.warning -t lab-iam-register "the key of $name asked for $requested: refused" || true
    refuse "your key belongs to $name; use: ssh register@SERVER-manage $name"
  fi
  key_is_live "$name" || refuse "your key was removed, or this server's /tmp is full; connect again"
  /usr/bin/sudo -n /root/new-lxc.bash --stdin <<<"$name"
}

main "$@"
