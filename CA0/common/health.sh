#!/usr/bin/env bash
# Reads `service state health exit-code` lines; exit 1 when there is none or one is neither healthy nor ended well.
set -euo pipefail
seen=0 bad=0
while read -r service state health code; do
  seen=$((seen + 1))
  # A container without a healthcheck has an empty health column: its exit code moves up.
  case "$state:$health:$code" in
    running:healthy:* | running:0: | exited:0:*) echo "ok   $service $state" ;;
    *) echo "BAD  $service $state $health $code"; bad=1 ;;
  esac
done
[ $seen -gt 0 ] || { echo "BAD  nothing runs here: make up"; exit 1; }
exit $bad
