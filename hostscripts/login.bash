#!/bin/bash -p
# /public/login.bash: the login shell of a registered person. Four fixed words, nothing else is ever run.
set -euf -o pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
umask 022

labhost_user() {
  exec /usr/bin/sudo -n /usr/local/sbin/labhost user "$1" </dev/null
}

do_start() {
  labhost_user start
}

do_help() {
  cat <<'TEXT'
start    start the container (also what happens without a word)
stop     stop the container
status   is it running, and where
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
      help) do_help && return 0 ;;
    esac
  fi
  echo "unknown command; say start, stop, status or help" >&2
  return 2
}

main "$@"
