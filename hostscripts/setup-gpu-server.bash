#!/bin/bash
# Sets up a GPU server for Lab IAM, or updates it. Run it as root from the folder with these files, as often as you like.
set -euf -o pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
umask 022

usage() {
  cat <<'TEXT'
usage: setup-gpu-server.bash --portal URL --name NAME --address IP --iam-key 'ssh-ed25519 AAAA...' --token-file FILE [option ...]
  --portal URL        address of the portal, e.g. http://iam.mylab.com
  --name NAME         name of this server, e.g. gpu17
  --address IP        IPv4 address at which people reach this server
  --iam-key LINE      public key of the portal
  --token-file FILE   file with the token with which this server reads from the portal
Options; without one, its setting stays as it is (defaults in parentheses):
  --portal-address IP address from which the portal connects, if it is not that of its URL
  --template FILE     archive from create-lxc-template.bash; it is copied
  --ports A-B         SSH ports of people's containers (22000-29999)
  --subuids A-B       people's subordinate ids (1000000000-2147483647)
  --forwards A-B      ports that people may forward to their containers (30000-32767)
  --forwards-each N   how many ports each person may forward; 0 for none (5)
  --groups LIST       groups of people's accounts on this server (sudo)
  --bridge NAME       bridge of lxc-net, which gives containers DNS, DHCP and NAT (lxcbr0)
  --network CIDR      network of lxc-net, from which containers get addresses (10.0.3.0/24)
  --mount SRC:DST[:ro]  folder to mount in every container; may be repeated
  --storage auto|overlay|dir  storage of new containers: a layer over one unpacked template (overlay), or a full copy
                      (dir); auto uses overlay where it works (auto)
  --quota auto|image|none  what enforces disk limits: quotas of /home's file system where it has them (auto), or an
                      allocated disk image for each new container that has a limit (image) (auto)
  --snapshots DIR     folder for snapshots, usually a mounted NAS; root must be able to write to it
  --snapshots-keep N  how many snapshots to keep for each person (5)
  --apparmor PROFILE  AppArmor profile of the containers (LXC's default)
  --driver install|bind  NVIDIA driver in containers: install it, or share the server's (install)
  --installers DIR    folder with NVIDIA-Linux-ARCH-VERSION.run files (/public/nvidia)
  --libraries LIST    folders to search for the server's libcuda.so.1
  --devices DIR       folder with the nvidia* device nodes (/dev)
  --driver-seconds N  how long installing the driver may delay a start (240)
  --help              show this text
TEXT
}

die() {
  echo "setup-gpu-server: $1" >&2
  exit 1
}

print_line() {
  echo "setup-gpu-server: $1"
}

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
readonly PACKAGES=(lxc uidmap iptables curl zstd sudo openssh-server python3 dbus libpam-systemd dnsmasq-base iproute2 procps
  ca-certificates tar findutils e2fsprogs mount)
settings=() mounts=() template='' seen=' '

# setting_of OPTION: prints the name that labhost configure has for it.
setting_of() {
  case $1 in
    --iam-key | --token-file) echo "${1#--}" ;;
    --portal) echo portal.url ;;
    --portal-address) echo portal.ssh_address ;;
    --name | --address | --ports | --subuids | --forwards) echo "server.${1#--}" ;;
    --forwards-each) echo server.forwards_each ;;
    --groups | --bridge | --network | --storage | --quota | --apparmor) echo "container.${1#--}" ;;
    --snapshots) echo snapshots.folder ;;
    --snapshots-keep) echo snapshots.keep ;;
    --driver) echo driver.mode ;;
    --driver-seconds) echo driver.seconds ;;
    --installers | --libraries | --devices) echo "driver.${1#--}" ;;
    *) die "unknown option $1; see --help" ;;
  esac
}

parse_arguments() {
  local option value setting
  while (($# > 0)); do
    option=$1
    [[ $option != --help ]] || { usage && exit 0; }
    (($# >= 2)) || die "$option needs a value; see --help"
    value=$2
    [[ $value != *$'\n'* ]] || die "the value of $option must be one line"
    seen+="$option "
    shift 2
    case $option in
      --template) template=$value ;;
      --mount) mounts+=("$value") ;;
      *)
        setting=$(setting_of "$option")
        settings+=("$setting=$value")
        ;;
    esac
  done
  if ((${#mounts[@]} > 0)); then
    settings+=("container.mounts=$(printf '%s\n' "${mounts[@]}")")
  fi
  for option in --portal --name --address --iam-key --token-file; do
    [[ $seen == *" $option "* ]] || die "$option is missing; see --help"
  done
}

os_release() {
  sed -n "s/^$1=\"\?\([^\"]*\)\"\?\$/\1/p" /etc/os-release
}

check_system() {
  local id version
  ((EUID == 0)) || die "run this script as root"
  id=$(os_release ID) version=$(os_release VERSION_ID)
  case "$id $version" in
    'debian 12' | 'debian 13' | 'ubuntu 22.04' | 'ubuntu 24.04') ;;
    *) die "$id $version is not supported; use Debian 12 or 13, or Ubuntu 22.04 or 24.04" ;;
  esac
  [[ -d /run/systemd/system ]] || die "this system was not booted by systemd"
  [[ -f $HERE/labhost/cli.py ]] || die "run this script from the folder with labhost and the entry points"
  [[ -z $template || -f $template ]] || die "the template $template does not exist"
}

install_packages() {
  local package missing=()
  for package in "${PACKAGES[@]}"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]} > 0)) || return 0
  print_line "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >/dev/null || die "apt-get update failed; correct this server's package sources"
  apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null || die "apt-get install ${missing[*]} failed"
}

# install_file MODE FILE TARGET: copies FILE to TARGET for root, whole or not at all.
install_file() {
  local mode=$1 file=$2 target=$3
  if cmp -s -- "$file" "$target" && [[ $(stat -c '%a %u:%g %F' -- "$target") == "${mode#0} 0:0 regular file" ]]; then
    return 0
  fi
  install -o root -g root -m "$mode" -- "$file" "$target.lab-iam-new"
  sync -- "$target.lab-iam-new"
  mv -fT -- "$target.lab-iam-new" "$target"
  print_line "wrote $target"
}

# write_text TEXT TARGET: the same with a text.
write_text() {
  local file
  file=$(mktemp)
  printf '%s\n' "$1" >"$file"
  install_file 0644 "$file" "$2"
  rm -f -- "$file"
}

# folder MODE PATH: creates a folder that belongs to root.
folder() {
  [[ ! -L $2 ]] || die "$2 is a symbolic link; it must be a folder that belongs to root"
  install -d -o root -g root -m "$1" -- "$2"
}

# check_account NAME: fails if the name belongs to another account.
check_account() {
  local entry
  entry=$(getent passwd "$1") || return 0
  [[ $(cut -d: -f6 <<<"$entry") == "/home/$1" ]] || die "another account has the name $1"
}

# system_account NAME SHELL: creates a locked account with a home that belongs to root.
system_account() {
  local name=$1 shell=$2 entry
  if entry=$(getent passwd "$name"); then
    [[ $(cut -d: -f7 <<<"$entry") == "$shell" ]] || usermod --shell "$shell" "$name"
  else
    useradd --system --user-group --home-dir "/home/$name" --no-create-home --shell "$shell" --password '*' \
      --comment 'Lab IAM' "$name"
    print_line "created the account $name"
  fi
  if [[ ! -e /home/$name/.ssh/authorized_keys ]]; then
    install -o root -g root -m 0644 /dev/null "/home/$name/.ssh/authorized_keys"
  fi
}

install_labhost() {
  local target=/usr/local/lib/lab-iam/labhost
  local new=$target.lab-iam-new old=$target.lab-iam-old
  diff -rq -x __pycache__ "$HERE/labhost" "$target" >/dev/null 2>&1 && return 0
  rm -rf -- "$new" "$old"
  cp -r -- "$HERE/labhost" "$new"
  find "$new" -name __pycache__ -prune -exec rm -rf {} +
  chown -R root:root -- "$new"
  chmod -R u=rwX,go=rX -- "$new"
  [[ ! -e $target ]] || mv -T -- "$target" "$old"
  mv -T -- "$new" "$target"
  rm -rf -- "$old"
  python3 -I -m compileall -q "$target"
  print_line "wrote $target"
}

install_files() {
  local path unit
  for path in /usr/local/lib/lab-iam /etc/lxc /public /home/iam /home/iam/.ssh /home/register /home/register/.ssh; do
    folder 0755 "$path"
  done
  folder 0700 /var/lib/lab-iam
  folder 0700 /etc/lab-iam
  install_labhost
  install_file 0755 "$HERE/labhost-command.py" /usr/local/sbin/labhost
  install_file 0755 "$HERE/login.bash" /public/login.bash
  install_file 0755 "$HERE/iam-shell.bash" /home/iam/iam-shell.bash
  install_file 0755 "$HERE/set_authorized_keys.py" /home/iam/set_authorized_keys.py
  install_file 0755 "$HERE/register.bash" /home/register/register.bash
  install_file 0755 "$HERE/new-lxc.bash" /root/new-lxc.bash
  for unit in lab-iam-reconcile.service lab-iam-reconcile.timer lab-iam-containers.service; do
    install_file 0644 "$HERE/$unit" "/etc/systemd/system/$unit"
  done
}

install_sudoers() {
  visudo -cqf "$HERE/lab-iam.sudoers" || die "lab-iam.sudoers is damaged; copy these files again"
  install_file 0440 "$HERE/lab-iam.sudoers" /etc/sudoers.d/lab-iam
  if ! visudo -cq; then
    rm -f /etc/sudoers.d/lab-iam
    die "the configuration of sudo is not valid; see visudo -c"
  fi
}

# sshd_port: prints the port of this server's sshd, the first one if there are more.
sshd_port() {
  local port
  port=$(sshd -T 2>/dev/null | sed -n '0,/^port /s/^port //p') || port=''
  echo "${port:-22}"
}

# sshd_knows NAME=VALUE: whether this version of sshd has the setting; an unknown one would keep it from starting.
sshd_knows() {
  sshd -t -o "$1" 2>/dev/null
}

# portal_addresses: prints the addresses from which the portal connects, separated by commas.
portal_addresses() {
  local url host found
  found=$(sed -n 's/^ssh_address = //p' /etc/lab-iam/host.conf)
  if [[ -z $found ]]; then
    url=$(sed -n 's/^url = //p' /etc/lab-iam/host.conf)
    host=${url#*://} host=${host%%/*} host=${host%:*}
    found=$(getent ahosts "$host" | cut -d' ' -f1 | sort -u | paste -sd,) || found=''
  fi
  echo "$found"
}

# sshd_text: prints the settings for this version of sshd.
sshd_text() {
  local portal
  portal=$(portal_addresses)
  # Where sshd makes addresses wait after failures, it does not let the portal wait.
  if [[ -n $portal ]] && sshd_knows "PerSourcePenaltyExemptList=$portal"; then
    echo "PerSourcePenaltyExemptList $portal"
  fi
  cat "$HERE/lab-iam-sshd.conf"
  if sshd_knows UnusedConnectionTimeout=60; then
    printf '%s\n' '# A connection without a command costs memory.' 'Match User iam,register' '    UnusedConnectionTimeout 60'
  fi
}

install_sshd() {
  local target=/etc/ssh/sshd_config.d/lab-iam.conf text
  grep -Eqi '^[[:space:]]*Include[[:space:]]+/etc/ssh/sshd_config\.d/\*\.conf' /etc/ssh/sshd_config ||
    die "/etc/ssh/sshd_config must have the line: Include /etc/ssh/sshd_config.d/*.conf"
  if sshd -T 2>/dev/null | grep -Eqi '^subsystem .*internal-sftp'; then
    die "sshd's internal-sftp bypasses login shells; use: Subsystem sftp /usr/lib/openssh/sftp-server"
  fi
  text=$(sshd_text)
  cmp -s - "$target" <<<"$text" && return 0
  write_text "$text" "$target"
  if ! sshd -t; then
    rm -f "$target"
    die "sshd rejects its configuration with $target; see sshd -t"
  fi
  systemctl reload ssh.service
}

install_template() {
  [[ -n $template ]] || return 0
  local target
  target=$(readlink -m /var/lib/lab-iam/template.tar.zst)
  [[ ! $template -ef $target ]] || return 0
  install_file 0600 "$template" "$target"
}

# A mount unit has the name of its folder. Without an image it would replace one of the administrator's own.
prepare_state() {
  local unit='var-lib-lab\x2diam.mount'
  /usr/local/sbin/labhost state-disk || die "labhost cannot use /var/lib/lab-iam"
  [[ -f /var/lib/lab-iam.img ]] || return 0
  install_file 0644 "$HERE/lab-iam-state.mount" "/etc/systemd/system/$unit"
  systemctl enable --quiet "$unit"
}

# The DHCP of lxc-net hands out the first addresses only; labhost assigns the others, and reserves them for DHCP clients.
configure_lxc_net() {
  local file=/etc/default/lxc-net conf=/etc/lxc/lab-iam-dnsmasq.conf network prefix before text=''
  folder 0755 /etc/lxc/lab-iam-dhcp-hosts
  # systemd would set its own default for each new bridge, a moment after labhost has made it.
  write_text 'net.ipv4.conf.lxc-u*.rp_filter = 1' /etc/sysctl.d/90-lab-iam.conf
  before=$(cat "$conf" 2>/dev/null || true)
  if grep -q '^bridge = lxc' /etc/lab-iam/host.conf; then
    write_text $'dhcp-hostsdir=/etc/lxc/lab-iam-dhcp-hosts\ninterface=lxc*' "$conf"
  else # dnsmasq does not start with a pattern that its own bridge does not match
    write_text 'dhcp-hostsdir=/etc/lxc/lab-iam-dhcp-hosts' "$conf"
  fi
  [[ -f $file ]] || return 0
  network=$(sed -n 's/^network = //p' /etc/lab-iam/host.conf)
  prefix=${network%.*}
  if [[ $network == 10.0.3.0/24 ]] && ! grep -Eq '^[[:space:]]*LXC_DHCP_RANGE=' "$file"; then
    text+="LXC_DHCP_RANGE=\"$prefix.2,$prefix.9\""$'\n'"LXC_DHCP_MAX=\"253\""$'\n'
  fi
  if ! grep -Eq '^[[:space:]]*LXC_DHCP_CONFILE=' "$file"; then
    text+='LXC_DHCP_CONFILE="/etc/lxc/lab-iam-dnsmasq.conf"'$'\n'
  elif ! grep -qF lab-iam-dnsmasq.conf "$file"; then
    print_line "note: for DHCP in containers, add conf-file=/etc/lxc/lab-iam-dnsmasq.conf to the file that LXC_DHCP_CONFILE names"
  fi
  [[ -z $text ]] || printf '\n# Lab IAM assigns the other addresses to its containers.\n%s' "$text" >>"$file"
  # Containers have bridges of their own, which a restart does not touch.
  [[ -z $text && $before == "$(cat "$conf")" ]] || systemctl restart lxc-net.service
}

# Lets user managers limit CPUs too; by default systemd delegates memory and processes only.
delegate_controllers() {
  folder 0755 /etc/systemd/system/user@.service.d
  write_text $'[Service]\nDelegate=cpu memory pids' /etc/systemd/system/user@.service.d/lab-iam.conf
}

main() {
  parse_arguments "$@"
  check_system
  install_packages
  getent group lab-iam >/dev/null || groupadd --system lab-iam
  check_account iam
  check_account register
  install_files
  system_account iam /home/iam/iam-shell.bash
  system_account register /home/register/register.bash
  prepare_state
  settings+=("server.ssh_port=$(sshd_port)")
  /usr/local/sbin/labhost configure "${settings[@]}" || die "labhost refused the settings"
  install_template
  configure_lxc_net
  delegate_controllers
  systemctl enable --now --quiet lxc-net.service
  /usr/local/sbin/labhost check || die "this server is not ready yet"
  /usr/local/sbin/labhost templates || die "labhost refused the template"
  install_sudoers
  install_sshd
  systemctl daemon-reload
  systemctl enable --quiet lab-iam-reconcile.service lab-iam-reconcile.timer lab-iam-containers.service
  systemctl restart lab-iam-reconcile.service || die "see: journalctl -u lab-iam-reconcile"
  systemctl restart lab-iam-reconcile.timer
  print_line "this server is ready"
}

main "$@"
