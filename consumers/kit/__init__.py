"""Internals: how a worker reads, delivers and settles entries. Users import from `consumers`.

From the top down; each package or module imports only those below it:

    worker/    a process: its parts, the order of shutdown, a watchdog, loading a consumer
    replay     delivers a time range to a consumer again
    shared/    the loop in which any worker of a group takes any entry (a Redis consumer group)
    ordered/   the loop in which each stream is assigned to one worker (leases, fenced commits)
    membership, redis_health    live workers and registered streams; availability of Redis
    reading/   `read`: a range of a stream for research, as deliveries, rows, or a data frame
    lag        the lag of groups, for `status` and the exporter
    handling/  calls of handlers: the runner of batches, failures, dead letters
    effects/   effects outside Redis that happen once: SQL, files
    event_factory    entries for the tests of consumers
    api/       the parts of a consumer: `Consumer`, `@consumes`, handlers, `Results`, `State`
    redis/     key names, the registry of streams, and all Lua scripts
    policy, stats, stop, order_book    pure parts that import nothing of the kit
"""
