#!/bin/bash -p
# /public/login.bash: the login shell of a registered person. It knows fixed commands with exact arguments and runs nothing
# else: a command becomes one of sudo's rules, and its arguments one line on labhost's standard input.
set -euf -o pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
umask 022

readonly HINT='for the list of commands, run: help'
pattern='' usage=''

# find_command NAME: sets pattern (a regular expression of all that may follow the name) and usage; fails if there is none.
# Generated from labhost/shell/commands.py: begin
readonly COMMANDS='start stop restart status port snapshot snapshots recover rebuild console top help'

find_command() {
  case $1 in
    start) pattern='' usage='start' ;;
    stop) pattern='' usage='stop' ;;
    restart) pattern='' usage='restart' ;;
    status) pattern='( --json)?' usage='status | status --json' ;;
    port) pattern='( --json| ([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])( ([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?| -d ([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?' usage='port | port N | port N SERVERPORT | port -d N | port --json' ;;
    snapshot) pattern='( [A-Za-z0-9][A-Za-z0-9_.-]{0,63})?' usage='snapshot [NAME]' ;;
    snapshots) pattern='( --json)?' usage='snapshots | snapshots --json' ;;
    recover) pattern=' [A-Za-z0-9][A-Za-z0-9_.-]{0,63}( [a-z0-9]{8})?' usage='recover NAME' ;;
    rebuild) pattern='( [a-z0-9]{8})?' usage='rebuild' ;;
    console) pattern='' usage='console' ;;
    top) pattern='( --json)?' usage='top | top --json' ;;
    help) pattern='' usage='help' ;;
    *) return 1 ;;
  esac
}

do_help() {
  cat <<'TEXT'
start              start your container (also without a command)
stop               stop it; your files stay
restart            stop and start it
status             show its state, ports, limits and driver
port               list your ports on this server
port N             forward a free port of the server to port N of your container (TCP, 1 to 65535)
port N SERVERPORT  the same, with a port of the server that you choose
port -d N          stop forwarding to port N
snapshot [NAME]    save a snapshot of your container
snapshots          list your snapshots
recover NAME       replace your container by a snapshot (asks first)
rebuild            replace your container by a new one from the template (asks first)
console            open a root shell in your container, even if its sshd is broken; needs ssh -t
top                show who uses the CPUs, memory and GPUs of this server
help               show this text

For programs: status, port, snapshots and top take --json.
Exit status: 0 done, 1 failed, 2 wrong use, 3 refused or not confirmed, 4 busy (try again).
TEXT
}
# Generated: end

labhost_user() {
  exec /usr/bin/sudo -n /usr/local/sbin/labhost user "$1" <<<"$2"
}

do_start() {
  labhost_user start ''
}

# A console uses the terminal itself.
do_console() {
  exec /usr/bin/sudo -n /usr/local/sbin/labhost user console
}

# suggest WORD: prints the command of which WORD is the beginning, or which is the beginning of WORD.
suggest() {
  local command
  local -a commands
  read -ra commands <<<"$COMMANDS"
  for command in "${commands[@]}"; do
    if [[ $command == "$1"* || $1 == "$command"* ]]; then
      echo "; did you mean '$command'?"
      return
    fi
  done
  echo "; $HINT"
}

# is_command LINE: the pattern must match all that follows the name, byte by byte.
is_command() {
  find_command "${1%%\ *}" && [[ ${1#"${1%%\ *}"} =~ ^($pattern)$ ]]
}

run_command() {
  local name=${1%%\ *} arguments=''
  [[ $1 == "$name" ]] || arguments=${1#*\ }
  case $name in
    start) do_start ;;
    console) do_console ;;
    help) do_help ;;
    *) labhost_user "$name" "$arguments" ;;
  esac
}

refuse() {
  local name=${1%%\ *}
  if find_command "$name"; then
    echo "wrong arguments; usage: $usage; $HINT" >&2
  elif [[ $name =~ ^[a-z]{1,20}$ ]]; then
    echo "unknown command '$name'$(suggest "$name")" >&2
  else
    echo "unknown command; $HINT" >&2
  fi
  return 2
}

main() {
  if (($# == 0)); then
    do_start
  fi
  if (($# == 2)) && [[ $1 == -c ]] && is_command "$2"; then
    run_command "$2"
  else
    refuse "${2-}"
  fi
}

main "$@"
