"""The kit's inside: how a worker reads, hands over, and settles. Users import from `consumers`.

From the top down; each room imports only those below it:

    worker/    a process: its parts and the order of stopping, a watchdog, finding a consumer
    replay     a time range to a consumer once more
    shared/    the loop in which any worker of a group takes any entry (a Redis consumer group)
    ordered/   the loop in which each stream is assigned to one worker (leases, fenced commits)
    membership, redis_health    which workers and streams there are, and whether Redis answers
    reading/   `read`: a range of a stream for research, as deliveries, rows, or a data frame
    lag        what `status` shows
    handling/  from entries to a consumer and back: one runner of batches, failures, dead letters
    effects/   effects outside Redis that happen once: SQL, files
    event_factory    entries for the tests of consumers
    api/       what a consumer is made of: `Consumer`, `@consumes`, handlers, `Results`, `State`
    redis/     key names, the registry of streams, and all Lua scripts
    policy, stats, stop, order_book    pure parts that import nothing of the kit
"""
