#!/bin/bash -p
# /root/new-lxc.bash: creates a person's account, subordinate ids and container. Run as root by `register` (--stdin: the name on
# one line), by `iam` (--json: a framed request) and by staff (NAME).
set -euf -o pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
umask 022

if (($# != 1)); then
  echo "usage: new-lxc.bash NAME | --stdin | --json" >&2
  exit 2
fi
exec /usr/local/sbin/labhost register "$1"
