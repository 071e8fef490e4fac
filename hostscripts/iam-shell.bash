#!/bin/bash -p
# /home/iam/iam-shell.bash: the login shell of `iam`. Five fixed verbs; a framed request on stdin, JSON on stdout.
set -euf -o pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
umask 022

main() {
  if (($# == 2)) && [[ $1 == -c ]]; then
    case $2 in
      status) exec /usr/bin/sudo -n /usr/local/sbin/labhost status ;;
      set-keys) exec /usr/bin/sudo -n /home/iam/set_authorized_keys.py ;;
      register) exec /usr/bin/sudo -n /root/new-lxc.bash --json ;;
      remove) exec /usr/bin/sudo -n /usr/local/sbin/labhost remove --json ;;
      suspend) exec /usr/bin/sudo -n /usr/local/sbin/labhost suspend --json ;;
    esac
  fi
  echo "unknown verb; this account knows status, set-keys, register, remove and suspend" >&2
  echo '{"version":1,"ok":false,"error":{"code":"bad_request","reason":"unknown_verb","params":{}}}'
  return 2
}

main "$@"
