#!/bin/sh
# sentinel.sh NAME PRIMARY_HOST PRIMARY_PORT PORT: one of three Sentinels. It stores its state in its
# configuration file, so that file is created at the first start only.
set -eu
file=${DATA:-/data}/sentinel.conf
if [ ! -f "$file" ]; then
    cat >"$file" <<END
port $4
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $1
sentinel monitor mymaster $2 $3 2
sentinel down-after-milliseconds mymaster 5000
sentinel failover-timeout mymaster 30000
END
fi
if command -v docker-entrypoint.sh >/dev/null; then
    exec docker-entrypoint.sh redis-server "$file" --sentinel
fi
exec redis-server "$file" --sentinel
