"""The garbage collector, set for a process that makes and drops objects all the time.

Reference counts free nearly everything that a message creates. By default the collector searches
for cycles after each 700 new objects, and now and then through all objects: a tenth of the
processor time at full load (measured). What exists after the start is permanent and excluded from
collection; the rest is collected less often. Cycles (a closed connection with its exception, say)
are still freed.
"""

import gc

YOUNG = 20_000  # new objects before a collection
MIDDLE, OLD = 20, 50  # collections of the younger generation before one of the next


def settle_collector() -> None:
    """Call once, after all permanent objects have been created."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
