#!/usr/bin/env bash
# Stop the controller of the cluster that up.sh has started, as for maintenance, and start it again.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/common.sh"
kill "$(cat $VAR/slurmctld.pid)"
while alive slurmctld slurmctld; do sleep 0.1; done
exec "$HERE/up.sh"
