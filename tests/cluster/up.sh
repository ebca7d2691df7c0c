#!/usr/bin/env bash
# A real SLURM cluster on one machine: 2 nodes, 2 stand-in GPUs each, with accounting. Needs root on Debian 12, neither
# systemd nor cgroups. Packages that are missing are installed; what runs already is left running. down.sh stops it.
# Exit status 3, and the reason on the last line: such a cluster cannot be had here.
set -euo pipefail
export PATH="/usr/sbin:/usr/bin:/sbin:/bin:$PATH" DEBIAN_FRONTEND=noninteractive
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/common.sh"
cannot() { echo "$1" >&2; exit 3; }
failed() { tail -n 20 "$2" >&2; echo "$1 failed, see $2" >&2; exit 1; }
wait_for() { local i; for ((i = 0; i < 300; i++)); do "$@" >/dev/null 2>&1 && return; sleep 0.2; done; return 1; }
start() { # NAME COMMAND CALL: in the background, unless it runs; its process id in NAME.pid
  alive "$1" "$2" && return
  "${@:3}" >>"$VAR/log/$1.out" 2>&1 </dev/null &
  echo $! >"$VAR/$1.pid"
}

[ "$(id -u)" = 0 ] || cannot "a cluster of one's own needs root"
grep -qs '^VERSION_ID="12"' /etc/os-release && command -v apt-get >/dev/null || cannot "a cluster of one's own needs Debian 12"
[ ! -e $ETC/slurm.conf ] || grep -qs "^ClusterName=ddrep$" $ETC/slurm.conf || cannot "this machine has a SLURM already: $ETC/slurm.conf"

# --- packages ---
wanted=(munge slurmctld slurmd slurm-client slurmdbd mariadb-server)
missing=()
for package in "${wanted[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
mkdir -p $VAR/log $VAR/dev $VAR/slurmctld $VAR/slurmd.n1 $VAR/slurmd.n2
if [ ${#missing[@]} -gt 0 ]; then
  policy=/usr/sbin/policy-rc.d # keeps the packages from starting daemons of their own
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; trap "rm -f $policy" EXIT; }
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >$VAR/log/apt.log 2>&1 ||
    cannot "apt-get could not install ${missing[*]}: $(tail -n 1 $VAR/log/apt.log)"
fi
HOST=$(hostname -s)
getent hosts "$HOST" >/dev/null || echo "127.0.0.1 $HOST" >>/etc/hosts

# --- configuration: in /etc/slurm, the only place where every program looks ---
for name in slurm.conf slurmdbd.conf gres.conf cgroup.conf; do
  sed -e "s|@HOST@|$HOST|g" -e "s|@VAR@|$VAR|g" "$HERE/$name" >$ETC/$name
done
chmod 600 $ETC/slurmdbd.conf
# A GPU must look like a character device, or CUDA_VISIBLE_DEVICES stays unset.
for i in 0 1; do ln -sfn /dev/null $VAR/dev/gpu$i; done
printf '#!/bin/sh\necho "$SLURM_JOB_ID $SLURMD_NODENAME $SLURM_JOB_GPUS" >>%s/gpus.log\n' $VAR >$VAR/prolog.sh
chmod +x $VAR/prolog.sh
install -d -o munge -g munge /run/munge /var/log/munge /var/lib/munge
install -d -o munge -g munge -m 0700 /etc/munge
[ -s /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
chown munge:munge /etc/munge/munge.key && chmod 400 /etc/munge/munge.key

# --- daemons, each answering before the next starts ---
start munged munged setpriv --reuid=munge --regid=munge --clear-groups /usr/sbin/munged --foreground --force
wait_for sh -c 'munge -n | unmunge' || failed munged $VAR/log/munged.out

install -d -o mysql -g mysql $VAR/mysql
[ -d $VAR/mysql/mysql ] || mariadb-install-db --no-defaults --user=mysql --datadir=$VAR/mysql \
  --auth-root-authentication-method=socket --skip-test-db >$VAR/log/mariadb-install.out 2>&1 ||
  failed mariadb-install-db $VAR/log/mariadb-install.out
start mariadbd mariadbd /usr/sbin/mariadbd --no-defaults --user=mysql --datadir=$VAR/mysql --socket=$VAR/mysql/socket \
  --skip-networking --skip-log-bin --innodb-buffer-pool-size=64M --innodb-log-file-size=32M --innodb-lock-wait-timeout=900
wait_for mariadb-admin --no-defaults --socket=$VAR/mysql/socket ping || failed mariadbd $VAR/log/mariadbd.out
# The client library takes the socket from this variable alone.
MYSQL_UNIX_PORT=$VAR/mysql/socket start slurmdbd slurmdbd /usr/sbin/slurmdbd -D
wait_for sacctmgr -n list cluster || failed slurmdbd $VAR/log/slurmdbd.out
# The account must be there before the plugin checks its name.
sacctmgr -n list cluster format=cluster%20 | grep -qw ddrep || sacctmgr -i add cluster ddrep >/dev/null
sacctmgr -n list account format=account%20 | grep -qw lab || sacctmgr -i add account lab cluster=ddrep >/dev/null
sacctmgr -n list assoc user=root account=lab format=account%20 | grep -qw lab || sacctmgr -i add user root account=lab >/dev/null

start slurmctld slurmctld /usr/sbin/slurmctld -D
wait_for sh -c 'scontrol ping | grep -q UP' || failed slurmctld $VAR/log/slurmctld.log
for node in n1 n2; do start slurmd.$node slurmd /usr/sbin/slurmd -D -N $node; done
scontrol update nodename=n1,n2 state=resume 2>/dev/null || true # taken down by hand, a node stays down
wait_for sh -c '[ "$(sinfo -h -N -o %t | grep -Ec "^(idle|mix|alloc|comp)$")" = 2 ]' || failed slurmd $VAR/log/slurmd.n1.log
sinfo -N -o '%N %t %c %m %G'
