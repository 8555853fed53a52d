#!/usr/bin/env bash
# Prepares one machine: packages, container engine, SSH with keys only, firewall. Safe to run again; prints what it changes.
#   sudo common/bootstrap.sh VM_FOLDER ADMIN_CIDR          for example: sudo common/bootstrap.sh vm1-kafka 198.51.100.10/32
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
vm=${1:?usage: bootstrap.sh VM_FOLDER ADMIN_CIDR}
admin=${2:?usage: bootstrap.sh VM_FOLDER ADMIN_CIDR}
[ "$(id -u)" = 0 ] || { echo "run it with sudo" >&2; exit 2; }
[ -f "$here/../$vm/firewall.rules" ] || { echo "unknown machine $vm: $here/../$vm/firewall.rules is missing" >&2; exit 2; }

# Ubuntu calls Compose v2 docker-compose-v2; Debian (13 and later) docker-compose.
. /etc/os-release
compose=docker-compose
if [ "$ID" = ubuntu ]; then compose=docker-compose-v2; fi
missing=()
for package in docker.io "$compose" ufw ca-certificates make openssl; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "changed: installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

install_if_new() { # source, target; true when something changed
  if cmp -s "$1" "$2"; then return 1; fi
  install -D -m 0644 "$1" "$2"
  echo "changed: $2"
}
if install_if_new "$here/docker-daemon.json" /etc/docker/daemon.json; then systemctl restart docker; fi
systemctl enable --now --quiet docker

if install_if_new "$here/sshd-hardening.conf" /etc/ssh/sshd_config.d/00-gpu-tokens.conf; then
  mkdir -p /run/sshd
  sshd -t # a mistake must not lock us out
  systemctl try-reload-or-restart ssh
fi

install -d -m 0755 /etc/gpu-tokens
echo "$admin" >/etc/gpu-tokens/admin-cidr
"$here/firewall.sh" "$here/../$vm/firewall.rules" "$admin"
echo "$vm is ready"
