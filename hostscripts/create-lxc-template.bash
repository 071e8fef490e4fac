#!/bin/bash
# Builds the template of people's containers: an archive with a small Debian or Ubuntu, with systemd, sshd and sudo.
set -euf -o pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
umask 022

usage() {
  cat <<'TEXT'
usage: create-lxc-template.bash [option ...] FILE
Writes a tar archive compressed with zstd, e.g. template.tar.zst. Needs root, and mmdebstrap or debootstrap.
  --suite NAME     bookworm, trixie, jammy, noble, ... (the one of this machine)
  --mirror URL     mirror for the packages (the default one of the distribution)
  --include LIST   more packages, separated by commas
  --help           show this text
TEXT
}

die() {
  echo "create-lxc-template: $1" >&2
  exit 1
}

print_line() {
  echo "create-lxc-template: $1"
}

readonly PACKAGES=systemd-sysv,dbus,openssh-server,sudo,iproute2,procps
suite='' mirror='' packages=$PACKAGES file='' work='' components=main

parse_arguments() {
  while (($# > 0)); do
    case $1 in
      --help)
        usage
        exit 0
        ;;
      --suite | --mirror | --include)
        (($# >= 2)) || die "$1 needs a value; see --help"
        case $1 in
          --suite) suite=$2 ;;
          --mirror) mirror=$2 ;;
          --include) packages+=,$2 ;;
        esac
        shift
        ;;
      -*) die "unknown option $1; see --help" ;;
      *)
        [[ -z $file ]] || die "more than one FILE; see --help"
        file=$1
        ;;
    esac
    shift
  done
  [[ -n $file ]] || die "FILE is missing; see --help"
  [[ $packages =~ ^[a-z0-9.+,-]+$ ]] || die "--include must be a list of packages"
}

check_arguments() {
  ((EUID == 0)) || die "run this script as root"
  [[ -d $(dirname "$file") ]] || die "the folder of $file does not exist"
  command -v zstd >/dev/null || die "zstd is missing: apt-get install zstd"
  [[ -n $suite ]] || suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  [[ $suite =~ ^[a-z0-9.-]+$ ]] || die "--suite must be the name of a suite"
  case $suite in
    jammy | noble | oracular | plucky | questing)
      mirror=${mirror:-http://archive.ubuntu.com/ubuntu}
      components=main,universe
      ;;
    *) mirror=${mirror:-http://deb.debian.org/debian} ;;
  esac
}

bootstrap() {
  local root=$1
  if command -v mmdebstrap >/dev/null; then
    mmdebstrap --quiet --mode=root --variant=minbase --components="$components" --include="$packages" \
      "$suite" "$root" "$mirror" || die "mmdebstrap failed"
  elif command -v debootstrap >/dev/null; then
    debootstrap --variant=minbase --components="$components" --include="$packages" "$suite" "$root" "$mirror" >/dev/null ||
      die "debootstrap failed"
  else
    die "install mmdebstrap or debootstrap"
  fi
}

# Removes what must differ between containers, and adds what each creates at its first boot.
adapt() {
  local root=$1 unit
  find "$root/etc/ssh" -maxdepth 1 -name 'ssh_host_*' -delete
  rm -f "$root/var/lib/dbus/machine-id" "$root/etc/hostname" "$root/etc/resolv.conf"
  : >"$root/etc/machine-id"
  cat >"$root/etc/systemd/system/lab-iam-host-keys.service" <<'UNIT'
[Unit]
Description=SSH host keys of this container
Before=ssh.service ssh.socket
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
UNIT
  mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
  ln -sf ../lab-iam-host-keys.service "$root/etc/systemd/system/multi-user.target.wants/lab-iam-host-keys.service"
  for unit in sys-kernel-debug.mount sys-kernel-tracing.mount; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit" # these fail in a container
  done
  install -m 0440 /dev/stdin "$root/etc/sudoers.d/lab-iam" <<<'%sudo ALL=(ALL:ALL) NOPASSWD: ALL'
  printf 'PasswordAuthentication no\nKbdInteractiveAuthentication no\n' >"$root/etc/ssh/sshd_config.d/lab-iam.conf"
  find "$root/var/cache/apt" "$root/var/lib/apt/lists" -type f -delete
}

pack() {
  local root=$1
  tar --directory="$root" --create --numeric-owner --xattrs --xattrs-include='*' --sort=name --anchored \
    --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' --exclude='./run/*' --file=- . |
    zstd -q -T0 -10 -f -o "$file.lab-iam-new" || die "cannot write the archive"
  sync -- "$file.lab-iam-new"
  mv -fT -- "$file.lab-iam-new" "$file"
}

clean_up() {
  if [[ -n $work ]]; then
    rm -rf --one-file-system -- "$work"
    rm -f -- "$file.lab-iam-new"
  fi
}

main() {
  parse_arguments "$@"
  check_arguments
  trap clean_up EXIT
  trap 'exit 130' INT TERM HUP
  work=$(mktemp -d "${TMPDIR:-/var/tmp}/lab-iam-template.XXXXXX")
  chmod 0755 "$work"
  mkdir -m 0755 "$work/root"
  print_line "building $suite from $mirror"
  bootstrap "$work/root"
  adapt "$work/root"
  print_line "packing"
  pack "$work/root"
  print_line "$file is ready ($(stat -c %s "$file") bytes)"
}

main "$@"
