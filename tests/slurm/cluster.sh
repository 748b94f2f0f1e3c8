#!/usr/bin/env bash
# Runs a command on a throwaway Slurm cluster of two nodes, of which nothing is left afterwards.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: tests/slurm/cluster.sh COMMAND...

Starts slurmctld and two slurmd (nodes n1 and n2, each with four pretended cores and two
GPUs) in namespaces of processes, network, names and mounts, runs COMMAND
there, and ends them all. Partitions: low (the
default) and high, whose jobs preempt those of low by requeueing them. Ends with
COMMAND's exit code, or 77 where Slurm or namespaces are not to be had.
USAGE
}

skip() {
    echo "skipped: $1" >&2
    exit 77
}

[ $# -gt 0 ] || { usage >&2 && exit 2; }
if [ "$1" = --help ]; then
    usage
    exit 0
fi

# The outer half: check, and go on inside. The end of the first process there ends all others.
if [ -z "${CLUSTER_INSIDE:-}" ]; then
    for name in slurmctld slurmd sbatch srun unshare ip; do
        command -v "$name" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$name" >/dev/null ||
            skip "no $name (Debian: slurmctld slurmd slurm-client util-linux iproute2)"
    done
    [ "$(id -u)" -eq 0 ] || skip "a Slurm cluster needs root, for its namespaces and its daemons"
    namespaces=(--pid --fork --kill-child --mount-proc --net --uts --ipc --mount)
    unshare "${namespaces[@]}" true 2>/dev/null || skip "namespaces are not allowed here (unshare)"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    rc=0
    CLUSTER_INSIDE=$scratch unshare "${namespaces[@]}" "$0" "$@" || rc=$?
    exit $rc
fi

scratch=$CLUSTER_INSIDE
unset CLUSTER_INSIDE
export PATH=$PATH:/usr/sbin:/sbin
nodes=(n1 n2)
hostname controller
ip link set lo up
ip addr add 127.0.0.2/8 dev lo # name resolution takes a network of 127.0.0.1 alone for none
echo "127.0.0.1 localhost controller ${nodes[*]}" >"$scratch/hosts"
mount --bind "$scratch/hosts" /etc/hosts
mkdir "$scratch/state"

cat >"$scratch/slurm.conf" <<CONF
ClusterName=throwaway
SlurmctldHost=controller(127.0.0.1)
SlurmUser=root
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
SlurmctldPort=6817
SlurmctldPidFile=$scratch/slurmctld.pid
SlurmctldLogFile=$scratch/slurmctld.log
SlurmdPidFile=$scratch/slurmd.%n.pid
SlurmdLogFile=$scratch/slurmd.%n.log
StateSaveLocation=$scratch/state
SlurmdSpoolDir=$scratch/%n/spool
TmpFS=$scratch/%n
MpiDefault=pmix
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdTimeout=6
MessageTimeout=5
KillWait=5
MinJobAge=600
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,requeue_delay=0
GresTypes=gpu
CONF
echo "Name=gpu File=/dev/null,/dev/zero" >"$scratch/gres.conf"
for i in "${!nodes[@]}"; do
    node=${nodes[i]}
    echo "NodeName=$node NodeHostname=$node NodeAddr=127.0.0.1 Port=$((6820 + i))" \
        "CPUs=4 RealMemory=1000 Gres=gpu:2" >>"$scratch/slurm.conf"
done
cat >>"$scratch/slurm.conf" <<CONF
PartitionName=low Nodes=ALL Default=YES State=UP PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL State=UP PriorityTier=10
CONF

export CLUSTER_DIR=$scratch SLURM_CONF=$scratch/slurm.conf
# Two nodes on one host: they meet on the loopback interface, and share its cores.
export OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
slurmctld -D -c >/dev/null 2>&1 &
# Switches the node $1 on, with an empty /tmp and its own name and shared memory.
cat >"$scratch/start_node" <<'SCRIPT'
#!/bin/sh
rm -rf "$CLUSTER_DIR/$1"
mkdir -p "$CLUSTER_DIR/$1/spool" "$CLUSTER_DIR/$1/shm"
exec setsid unshare --uts --mount sh -c 'hostname "$1" && mount --bind "$CLUSTER_DIR/$1/shm" /dev/shm &&
    exec slurmd -D -N "$1"' start "$1" >/dev/null 2>&1
SCRIPT
chmod +x "$scratch/start_node"
for node in "${nodes[@]}"; do
    "$scratch/start_node" "$node" &
done
disown -a # a node that a test switches off is no news

for _ in $(seq 300); do
    [ "$(sinfo -h -p low -t idle -o %D 2>/dev/null)" != "${#nodes[@]}" ] || break
    sleep 0.1
done
if [ "$(sinfo -h -p low -t idle -o %D 2>/dev/null)" != "${#nodes[@]}" ]; then
    echo "the cluster did not start:" >&2
    tail -n 20 "$scratch"/*.log >&2
    exit 1
fi
rc=0
"$@" || rc=$?
[ $rc -eq 0 ] || [ $rc -eq 77 ] || tail -n 20 "$scratch"/*.log >&2
exit $rc
