#!/bin/bash -p
# /public/login.bash: the login shell of a registered person. Fixed words with exact arguments, nothing else is ever run:
# a word becomes one of sudo's rules, and its arguments one line on labhost's standard input.
set -euf -o pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
umask 022

# From 1 to 65535, without a zero in front.
readonly NUMBER='([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])'
readonly NAME='[A-Za-z0-9][A-Za-z0-9_.-]{0,63}' ONCE='[a-z0-9]{8}'
readonly HINT='say help for all of them'
verb='' arguments=''

labhost_user() {
  exec /usr/bin/sudo -n /usr/local/sbin/labhost user "$1" <<<"$2"
}

do_start() {
  labhost_user start ''
}

# A console speaks to the terminal itself.
do_console() {
  exec /usr/bin/sudo -n /usr/local/sbin/labhost user console
}

do_help() {
  cat <<'TEXT'
start               start the container (also what happens without a word)
stop                stop it; your files stay
restart             stop and start
status              is it running, and where; its ports, limits and driver
port                your ports of this server
port N              lead a free port of the server to port N (TCP) of your container
port N SERVERPORT   the same, with the server's port chosen by you
port -d N           take it back
snapshot [NAME]     keep a copy of the container
snapshots           the copies that are kept
recover NAME        put a copy in the container's place (asks first)
rebuild             a fresh system from the template in its place (asks first)
console             a root shell in your container, also when its sshd is broken; needs: ssh -t
top                 who uses CPU, memory and GPUs of this server
help                this text

For programs: status, port, snapshots and top take --json.
Exit status: 0 done, 1 failed, 2 wrong use, 3 refused or not confirmed, 4 busy, try again.
TEXT
}

# understand LINE: sets verb and arguments, or fails. Patterns match the whole of what follows the verb, byte by byte.
understand() {
  local line=$1 pattern
  verb=${line%%\ *} arguments=''
  [[ $line != "$verb" ]] && arguments=${line#*\ }
  case $verb in
    start | stop | restart | console | help) pattern='' ;;
    status | top | snapshots) pattern='--json' ;;
    port) pattern="--json|$NUMBER( $NUMBER)?|-d $NUMBER" ;;
    snapshot) pattern=$NAME ;;
    recover) pattern="$NAME( $ONCE)?" ;;
    rebuild) pattern=$ONCE ;;
    *) return 1 ;;
  esac
  if [[ $line == "$verb" ]]; then
    [[ $verb != recover ]]
  else
    [[ -n $pattern && $arguments =~ ^($pattern)$ ]]
  fi
}

main() {
  if (($# == 0)); then
    do_start
  fi
  if (($# == 2)) && [[ $1 == -c ]] && understand "$2"; then
    case $verb in
      start) do_start ;;
      console) do_console ;;
      help) do_help && return 0 ;;
      *) labhost_user "$verb" "$arguments" ;;
    esac
    if [[ $2 =~ ^(snapshot|recover)\ ([A-Za-z0-9][A-Za-z0-9_.-]{0,63})$ ]]; then
      labhost_user "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
    fi
  fi
  if (($# == 2)) && [[ $2 == port\ * ]]; then
    echo "unknown command; port takes a number from 1 to 65535: port N, port N SERVERPORT, port -d N; $HINT" >&2
  else
    echo "unknown command; say start, stop, status, port, console, ...; $HINT" >&2
  fi
  return 2
}

main "$@"
