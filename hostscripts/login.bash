#!/bin/bash -p
# /public/login.bash: the login shell of a registered person. Fixed words, nothing else is ever run.
set -euf -o pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
umask 022

labhost_user() {
  exec /usr/bin/sudo -n /usr/local/sbin/labhost user "$1" <<<"${2-}"
}

do_start() {
  labhost_user start
}

do_help() {
  cat <<'TEXT'
start    start the container (also what happens without a word)
stop     stop the container
status   is it running, and where
snapshot [NAME]  pack what is your own into the lab's folder of snapshots
snapshots        list them
recover NAME     the system of a snapshot in the place of the current one
rebuild          a fresh system; nothing of the current one survives
help     this text
TEXT
}

main() {
  if (($# == 0)); then
    do_start
  fi
  if (($# == 2)) && [[ $1 == -c ]]; then
    case $2 in
      start) do_start ;;
      stop) labhost_user stop ;;
      status) labhost_user status ;;
      rebuild) labhost_user rebuild ;;
      snapshots) labhost_user snapshots ;;
      snapshot) labhost_user snapshot ;;
      help) do_help && return 0 ;;
    esac
    if [[ $2 =~ ^(snapshot|recover)\ ([A-Za-z0-9][A-Za-z0-9_.-]{0,63})$ ]]; then
      labhost_user "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
    fi
  fi
  echo "unknown command; say help" >&2
  return 2
}

main "$@"
