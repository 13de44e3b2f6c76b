#!/bin/sh
# cluster.sh HOST:PORT…: make a Cluster of these servers, half of them replicas. If they are one
# already, send CLUSTER MEET: after a restart of all containers their addresses have changed, and they
# would not find each other.
set -eu
addresses=
for node in "$@"; do
    address=$(getent hosts "${node%:*}" | awk '{ print $1; exit }')
    addresses="$addresses $address:${node##*:}"
done
host=${1%:*}
port=${1##*:}
if redis-cli -h "$host" -p "$port" cluster info | grep -q cluster_slots_assigned:16384; then
    for node in $addresses; do
        redis-cli -h "$host" -p "$port" cluster meet "${node%:*}" "${node##*:}"
    done
else
    # shellcheck disable=SC2086 # each address is a separate argument
    redis-cli --cluster create $addresses --cluster-replicas 1 --cluster-yes
fi
