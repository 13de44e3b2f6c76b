#!/bin/sh
# start.sh PRIMARY [OPTION…]: a Redis server that keeps its role after a restart.
#
# PRIMARY is `none`, or "host port" of the server that it is a replica of at its first start. After a
# fail-over Sentinel writes the new roles into the configuration file; given on the command line, the
# initial role would return at each restart, and a primary would be emptied by its former one.
set -eu
file=${DATA:-/data}/redis.conf
primary=$1
shift
if [ ! -f "$file" ]; then
    if [ "$primary" = none ]; then : >"$file"; else echo "replicaof $primary" >"$file"; fi
fi
# The image's own entry point continues as an ordinary user.
if command -v docker-entrypoint.sh >/dev/null; then
    exec docker-entrypoint.sh redis-server "$file" "$@"
fi
exec redis-server "$file" "$@"
