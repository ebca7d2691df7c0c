# Where the cluster lives, and whether one of its daemons does: for up.sh and down.sh.
ETC=/etc/slurm VAR=/var/lib/ddrep-cluster
alive() { # NAME COMMAND: the process of NAME.pid runs and is COMMAND (a zombie does not count)
  local pid
  pid=$(cat "$VAR/$1.pid" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] &&
    ! grep -q '^State:.Z' "/proc/$pid/status"
}
