#!/bin/bash
# Makes a GPU server ready for Lab IAM, or brings it up to date: run it as root, from the folder that holds these files, as often
# as you like.
set -euf -o pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
umask 022

usage() {
  cat <<'TEXT'
usage: setup-gpu-server.bash --portal URL --name NAME --address IP --iam-key 'ssh-ed25519 AAAA...' --token-file FILE [option ...]
  --portal URL        the portal, e.g. http://iam.mylab.com
  --name NAME         this server's name, e.g. gpu17
  --address IP        the IPv4 address at which people reach it
  --iam-key LINE      the portal's public key
  --token-file FILE   holds the token with which this server reads the portal
Options; what is not given stays as it was:
  --template FILE     archive made by create-lxc-template.bash; it is copied
  --ports A-B         people's ports (22000-29999)
  --subuids A-B       people's subordinate ids (1000000000-2147483647)
  --forwards A-B      ports that people may lead to their containers (30000-32767)
  --forwards-each N   so many for each person; 0 for none (5)
  --groups LIST       groups of people's accounts here (sudo)
  --bridge NAME       LXC's bridge (lxcbr0)
  --network CIDR      its network (10.0.3.0/24)
  --mount SRC:DST[:ro]  a folder to show in every container; may be given several times
  --storage auto|overlay|dir  how new containers get their files: a layer over one unpacked template (overlay), or a copy
                      of it each (dir); auto takes overlay where it works (auto)
  --snapshots DIR     folder of people's snapshots, usually a mounted NAS; root must be able to write there
  --snapshots-keep N  how many snapshots of each person are kept (5)
  --apparmor PROFILE  AppArmor profile of the containers (LXC's own default)
  --driver install|bind  NVIDIA driver inside: install it, or share the server's
  --installers DIR    where NVIDIA-Linux-ARCH-VERSION.run files lie (/public/nvidia)
  --libraries LIST    folders with the server's libcuda.so.1
  --devices DIR       where the nvidia* device nodes are (/dev)
  --driver-seconds N  how long the driver's installer may hold up a start (240)
  --help              this text
TEXT
}

die() {
  echo "setup-gpu-server: $1" >&2
  exit 1
}

say() {
  echo "setup-gpu-server: $1"
}

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
readonly PACKAGES=(lxc uidmap iptables curl zstd sudo openssh-server python3 dbus libpam-systemd dnsmasq-base iproute2 procps
  ca-certificates tar findutils)
settings=() mounts=() template='' given=' '

parse_words() {
  local option value
  while (($# > 0)); do
    option=$1
    if [[ $option == --help ]]; then
      usage
      exit 0
    fi
    (($# >= 2)) || die "$option needs a value; see --help"
    value=$2
    [[ $value != *$'\n'* ]] || die "$option: one line, please"
    given+="$option "
    shift 2
    case $option in
      --portal) settings+=("portal.url=$value") ;;
      --name) settings+=("server.name=$value") ;;
      --address) settings+=("server.address=$value") ;;
      --iam-key) settings+=("iam-key=$value") ;;
      --token-file) settings+=("token-file=$value") ;;
      --ports) settings+=("server.ports=$value") ;;
      --subuids) settings+=("server.subuids=$value") ;;
      --forwards) settings+=("server.forwards=$value") ;;
      --forwards-each) settings+=("server.forwards_each=$value") ;;
      --template) template=$value ;;
      --groups) settings+=("container.groups=$value") ;;
      --bridge) settings+=("container.bridge=$value") ;;
      --network) settings+=("container.network=$value") ;;
      --mount) mounts+=("$value") ;;
      --storage) settings+=("container.storage=$value") ;;
      --snapshots) settings+=("snapshots.folder=$value") ;;
      --snapshots-keep) settings+=("snapshots.keep=$value") ;;
      --apparmor) settings+=("container.apparmor=$value") ;;
      --driver) settings+=("driver.mode=$value") ;;
      --installers) settings+=("driver.installers=$value") ;;
      --libraries) settings+=("driver.libraries=$value") ;;
      --devices) settings+=("driver.devices=$value") ;;
      --driver-seconds) settings+=("driver.seconds=$value") ;;
      *) die "unknown option $option; see --help" ;;
    esac
  done
  if ((${#mounts[@]} > 0)); then
    settings+=("container.mounts=$(printf '%s\n' "${mounts[@]}")")
  fi
  for option in --portal --name --address --iam-key --token-file; do
    [[ $given == *" $option "* ]] || die "$option is missing; see --help"
  done
}

os_release() {
  sed -n "s/^$1=\"\?\([^\"]*\)\"\?\$/\1/p" /etc/os-release
}

check_system() {
  local id version
  ((EUID == 0)) || die "run me as root"
  id=$(os_release ID) version=$(os_release VERSION_ID)
  case "$id $version" in
    'debian 12' | 'debian 13' | 'ubuntu 22.04' | 'ubuntu 24.04') ;;
    *) die "$id $version is not supported; use Debian 12 or 13, or Ubuntu 22.04 or 24.04" ;;
  esac
  [[ -d /run/systemd/system ]] || die "this system was not booted by systemd"
  [[ -f $HERE/labhost/cli.py ]] || die "run me from the folder that holds labhost and the entry points"
  if [[ -n $template && ! -f $template ]]; then
    die "the template $template does not exist"
  fi
}

install_packages() {
  local package missing=()
  for package in "${PACKAGES[@]}"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]} > 0)) || return 0
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >/dev/null || die "apt-get update failed; correct this server's package sources"
  apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null || die "apt-get install ${missing[*]} failed"
}

# put MODE FILE TARGET: copies FILE to TARGET, whole or not at all, as root's.
put() {
  local mode=$1 file=$2 target=$3
  if cmp -s -- "$file" "$target" && [[ $(stat -c '%a %u:%g %F' -- "$target") == "${mode#0} 0:0 regular file" ]]; then
    return 0
  fi
  install -o root -g root -m "$mode" -- "$file" "$target.lab-iam-new"
  sync -- "$target.lab-iam-new"
  mv -fT -- "$target.lab-iam-new" "$target"
  say "wrote $target"
}

# write_line TEXT TARGET: as put, with a text of one or a few lines.
write_line() {
  local file
  file=$(mktemp)
  printf '%s\n' "$1" >"$file"
  put 0644 "$file" "$2"
  rm -f -- "$file"
}

# folder MODE PATH: a folder of root's.
folder() {
  [[ ! -L $2 ]] || die "$2 is a symbolic link; it must be a folder of root's"
  install -d -o root -g root -m "$1" -- "$2"
}

# check_account NAME: nobody else has this name.
check_account() {
  local entry
  entry=$(getent passwd "$1") || return 0
  [[ $(cut -d: -f6 <<<"$entry") == "/home/$1" ]] || die "there is another account $1 here already"
}

# system_account NAME SHELL: a locked account whose home belongs to root.
system_account() {
  local name=$1 shell=$2 entry
  if entry=$(getent passwd "$name"); then
    [[ $(cut -d: -f7 <<<"$entry") == "$shell" ]] || usermod --shell "$shell" "$name"
  else
    useradd --system --user-group --home-dir "/home/$name" --no-create-home --shell "$shell" --password '*' \
      --comment 'Lab IAM' "$name"
    say "made the account $name"
  fi
  if [[ ! -e /home/$name/.ssh/authorized_keys ]]; then
    install -o root -g root -m 0644 /dev/null "/home/$name/.ssh/authorized_keys"
  fi
}

install_files() {
  local old=/usr/local/lib/lab-iam/labhost fresh=/usr/local/lib/lab-iam/labhost.lab-iam-new
  folder 0755 /usr/local/lib/lab-iam
  folder 0700 /var/lib/lab-iam
  folder 0700 /etc/lab-iam
  folder 0755 /etc/lxc
  folder 0755 /public
  folder 0755 /home/iam
  folder 0755 /home/iam/.ssh
  folder 0755 /home/register
  folder 0755 /home/register/.ssh
  if ! diff -rq -x __pycache__ "$HERE/labhost" "$old" >/dev/null 2>&1; then
    rm -rf -- "$fresh" "$old.lab-iam-old"
    cp -r -- "$HERE/labhost" "$fresh"
    find "$fresh" -name __pycache__ -prune -exec rm -rf {} +
    chown -R root:root -- "$fresh"
    chmod -R u=rwX,go=rX -- "$fresh"
    [[ ! -e $old ]] || mv -T -- "$old" "$old.lab-iam-old"
    mv -T -- "$fresh" "$old"
    rm -rf -- "$old.lab-iam-old"
    python3 -I -m compileall -q "$old"
    say "wrote $old"
  fi
  put 0755 "$HERE/labhost-command.py" /usr/local/sbin/labhost
  put 0755 "$HERE/login.bash" /public/login.bash
  put 0755 "$HERE/iam-shell.bash" /home/iam/iam-shell.bash
  put 0755 "$HERE/set_authorized_keys.py" /home/iam/set_authorized_keys.py
  put 0755 "$HERE/register.bash" /home/register/register.bash
  put 0755 "$HERE/new-lxc.bash" /root/new-lxc.bash
  put 0644 "$HERE/lab-iam-reconcile.service" /etc/systemd/system/lab-iam-reconcile.service
  put 0644 "$HERE/lab-iam-reconcile.timer" /etc/systemd/system/lab-iam-reconcile.timer
  put 0644 "$HERE/lab-iam-containers.service" /etc/systemd/system/lab-iam-containers.service
}

install_sudoers() {
  visudo -cqf "$HERE/lab-iam.sudoers" || die "lab-iam.sudoers is damaged"
  put 0440 "$HERE/lab-iam.sudoers" /etc/sudoers.d/lab-iam
  if ! visudo -cq; then
    rm -f /etc/sudoers.d/lab-iam
    die "sudo's configuration is not valid; correct it: visudo -c"
  fi
}

install_sshd() {
  local target=/etc/ssh/sshd_config.d/lab-iam.conf
  grep -Eqi '^[[:space:]]*Include[[:space:]]+/etc/ssh/sshd_config\.d/\*\.conf' /etc/ssh/sshd_config ||
    die "/etc/ssh/sshd_config must have the line: Include /etc/ssh/sshd_config.d/*.conf"
  if sshd -T 2>/dev/null | grep -Eqi '^subsystem .*internal-sftp'; then
    die "sshd's internal-sftp passes by login shells; use: Subsystem sftp /usr/lib/openssh/sftp-server"
  fi
  cmp -s "$HERE/lab-iam-sshd.conf" "$target" && return 0
  put 0644 "$HERE/lab-iam-sshd.conf" "$target"
  if ! sshd -t; then
    rm -f "$target"
    die "sshd refuses its configuration with $target; correct it: sshd -t"
  fi
  systemctl reload ssh.service
}

install_template() {
  [[ -n $template ]] || return 0
  local target=/var/lib/lab-iam/template.tar.zst
  [[ ! $template -ef $target ]] || return 0
  put 0600 "$template" "$target"
}

# lxc-net's own DHCP keeps to the first addresses; the others are given out by labhost, and reserved for who asks by DHCP.
configure_lxc_net() {
  local file=/etc/default/lxc-net network prefix text=''
  folder 0755 /etc/lxc/lab-iam-dhcp-hosts
  write_line 'dhcp-hostsdir=/etc/lxc/lab-iam-dhcp-hosts' /etc/lxc/lab-iam-dnsmasq.conf
  [[ -f $file ]] || return 0
  network=$(sed -n 's/^network = //p' /etc/lab-iam/host.conf)
  prefix=${network%.*}
  if [[ $network == 10.0.3.0/24 ]] && ! grep -Eq '^[[:space:]]*LXC_DHCP_RANGE=' "$file"; then
    text+="LXC_DHCP_RANGE=\"$prefix.2,$prefix.9\""$'\n'"LXC_DHCP_MAX=\"253\""$'\n'
  fi
  if ! grep -Eq '^[[:space:]]*LXC_DHCP_CONFILE=' "$file"; then
    text+='LXC_DHCP_CONFILE="/etc/lxc/lab-iam-dnsmasq.conf"'$'\n'
  elif ! grep -qF lab-iam-dnsmasq.conf "$file"; then
    say "note: for containers with DHCP, name /etc/lxc/lab-iam-dnsmasq.conf in the file of LXC_DHCP_CONFILE (conf-file=)"
  fi
  [[ -n $text ]] || return 0
  printf '\n# Lab IAM gives the other addresses to its containers.\n%s' "$text" >>"$file"
  if [[ ! -d /sys/class/net/lxcbr0/brif || -z $(find /sys/class/net/lxcbr0/brif -mindepth 1 -print -quit) ]]; then
    systemctl restart lxc-net.service
  else
    say "note: containers run; lxc-net takes its new values at its next start"
  fi
}

# People's user managers may limit processors too, not only memory and processes as systemd has it.
delegate_controllers() {
  folder 0755 /etc/systemd/system/user@.service.d
  write_line $'[Service]\nDelegate=cpu memory pids' /etc/systemd/system/user@.service.d/lab-iam.conf
}

main() {
  parse_words "$@"
  check_system
  install_packages
  getent group lab-iam >/dev/null || groupadd --system lab-iam
  check_account iam
  check_account register
  install_files
  system_account iam /home/iam/iam-shell.bash
  system_account register /home/register/register.bash
  /usr/local/sbin/labhost configure "${settings[@]}" || die "the values were refused"
  install_template
  configure_lxc_net
  delegate_controllers
  systemctl enable --now --quiet lxc-net.service
  /usr/local/sbin/labhost check || die "this server is not fit yet"
  /usr/local/sbin/labhost templates || die "the template was refused"
  install_sudoers
  install_sshd
  systemctl daemon-reload
  systemctl enable --quiet lab-iam-reconcile.service lab-iam-reconcile.timer lab-iam-containers.service
  systemctl restart lab-iam-reconcile.service || die "see: journalctl -u lab-iam-reconcile"
  systemctl restart lab-iam-reconcile.timer
  say "this server is ready"
}

main "$@"
