#!/usr/bin/env bash
# Cancel what runs on the cluster of up.sh, stop the daemons that up.sh started, and forget all they kept.
# The packages stay. Exit status 0 also when nothing runs.
set -uo pipefail
export PATH="/usr/sbin:/usr/bin:/sbin:/bin:$PATH"
. "$(cd "$(dirname "$0")" && pwd)/common.sh"
stop() { # NAME COMMAND
  local i
  if alive "$1" "$2"; then
    kill "$(cat "$VAR/$1.pid")"
    for ((i = 0; i < 200; i++)); do alive "$1" "$2" || break; sleep 0.1; done
    alive "$1" "$2" && kill -KILL "$(cat "$VAR/$1.pid")"
  fi
  rm -f "$VAR/$1.pid"
}

if alive slurmctld slurmctld && scontrol ping | grep -q UP; then # a job outlives its slurmd
  scancel --user=root 2>/dev/null
  for ((i = 0; i < 100; i++)); do [ -z "$(squeue -h)" ] && break; sleep 0.2; done
fi
for node in n1 n2; do stop slurmd.$node slurmd; done
stop slurmctld slurmctld
stop slurmdbd slurmdbd
stop mariadbd mariadbd
stop munged munged
if grep -qs "^ClusterName=ddrep$" $ETC/slurm.conf; then rm -f $ETC/{slurm,slurmdbd,gres,cgroup}.conf; fi
rm -rf $VAR
