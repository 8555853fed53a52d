#!/usr/bin/env bash
# Makes UFW hold exactly the rules of one firewall.rules file: missing ones are added, others removed, the rest left alone.
#   sudo firewall.sh [--check] RULES_FILE ADMIN_CIDR
# Prints one `changed: ...` line per difference. --check changes nothing and exits 3 when there is a difference.
set -euo pipefail

check=no
if [ "${1-}" = --check ]; then check=yes; shift; fi
rules=${1:?usage: firewall.sh [--check] RULES_FILE ADMIN_CIDR}
admin=${2:?usage: firewall.sh [--check] RULES_FILE ADMIN_CIDR}
case $admin in
  */0 | any) echo "ADMIN_CIDR=$admin opens SSH to everyone; give your own address, such as 198.51.100.10/32" >&2; exit 2 ;;
  *.*.*.*/* | *:*/*) ;;
  *) echo "ADMIN_CIDR=$admin is not a range; give address/prefix, such as 198.51.100.10/32" >&2; exit 2 ;;
esac

differences=0
differs() { # message, command to repair it
  differences=$((differences + 1))
  echo "changed: $1"
  shift
  if [ $check = no ]; then "$@" >/dev/null; fi
}

# ufw prints a single address without its /32.
wanted() {
  sed -e 's/#.*//' -e "s|ADMIN_CIDR|$admin|" "$rules" | while read -r port _from source; do
    if [ -n "$port" ]; then echo "allow from ${source%/32} to any port ${port%/*} proto ${port#*/}"; fi
  done | sort
}
present() { ufw show added | sed -n -e "s/ comment '.*'\$//" -e 's/^ufw //p' | sort; }

wanted_rules=$(wanted)
present_rules=$(present)
# Missing rules first: the administrator's own SSH rule must stand before anything is denied or removed.
while read -r rule; do
  # shellcheck disable=SC2086  # a rule is several words
  if [ -n "$rule" ]; then differs "rule added: $rule" ufw $rule; fi
done < <(comm -23 <(echo "$wanted_rules") <(echo "$present_rules"))
while read -r rule; do
  # shellcheck disable=SC2086
  if [ -n "$rule" ]; then differs "rule not in the flow table removed: $rule" ufw --force delete $rule; fi
done < <(comm -13 <(echo "$wanted_rules") <(echo "$present_rules"))

default_is() { grep -qx "DEFAULT_${1}_POLICY=\"$2\"" /etc/default/ufw; }
default_is INPUT DROP || differs "default of incoming set to deny" ufw default deny incoming
default_is OUTPUT ACCEPT || differs "default of outgoing set to allow" ufw default allow outgoing
default_is FORWARD DROP || differs "default of routed set to deny" ufw default deny routed
ufw status | grep -q '^Status: active' || differs "firewall enabled" ufw --force enable

if [ $check = yes ] && [ $differences -gt 0 ]; then exit 3; fi
