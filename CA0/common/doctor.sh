#!/usr/bin/env bash
# Looks at one machine and says what is wrong and how to repair it. Changes nothing; exit 1 when something is wrong.
#   common/doctor.sh VM_FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
vm=${1:?usage: doctor.sh VM_FOLDER}
wrong=0
ok() { echo "ok    $1"; }
bad() { echo "WRONG $1 -> $2"; wrong=$((wrong + 1)); }
verdict() { # text when good, repair, command...
  local good=$1 repair=$2
  shift 2
  if "$@" >/dev/null 2>&1; then ok "$good"; else bad "not so: $good" "$repair"; fi
}

verdict "docker answers" "make setup" sudo docker info
verdict "docker compose v2 is there" "make setup" sudo docker compose version
verdict ".env is there, readable by its owner only" "from your own machine: make -C CA0 sync" \
  sh -c "[ \"\$(stat -c %a '$here/$vm/.env')\" = 600 ]"
for image in $(sed -n 's/^[A-Z_]*_IMAGE=//p' "$here/$vm/.env" 2>/dev/null); do
  verdict "image $image is on this machine" "docker pull, or make -C CA0 image" sudo docker image inspect "$image"
done

admin=$(cat /etc/gpu-tokens/admin-cidr 2>/dev/null || true)
verdict "UFW holds exactly the flow table's rules" "make setup" \
  sudo "$here/common/firewall.sh" --check "$here/$vm/firewall.rules" "${admin:-none}"
published=$(sudo docker ps --format '{{.Names}} {{.Ports}}' 2>/dev/null | grep -- '->' || true)
if [ -z "$published" ]; then
  ok "no container publishes a port (that would go around UFW)"
else
  bad "containers publish ports around UFW: $published" "use network_mode: host, as docker-compose.yml here does"
fi

sshd=$(sudo /usr/sbin/sshd -T 2>/dev/null || true)
for line in "passwordauthentication no" "permitrootlogin no" "authenticationmethods publickey"; do
  if grep -qix "$line" <<<"$sshd"; then ok "sshd: $line"; else bad "sshd: not $line" "make setup"; fi
done

free=$(df --output=pcent / | tr -dc 0-9)
if [ "$free" -lt 85 ]; then ok "disk $free % full"; else bad "disk $free % full" "make down, then enlarge the volume"; fi
# Event times come from these clocks: the processor refuses events over five minutes ahead.
if command -v timedatectl >/dev/null && [ "$(timedatectl show -p NTPSynchronized --value 2>/dev/null)" = yes ]; then
  ok "clock synchronised"
else
  echo "note  clock synchronisation is not reported by this machine: check that chrony or systemd-timesyncd runs"
fi
[ $wrong -eq 0 ] && echo "nothing wrong on $vm" || { echo "$wrong wrong on $vm"; exit 1; }
