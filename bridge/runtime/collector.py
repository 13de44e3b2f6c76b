"""The garbage collector, set for a process that makes and drops objects all the time.

Nearly everything that a message makes goes by its reference count. By default the collector looks
for circles after each 700 objects more, and now and then through all there are: a tenth of the
processor time at full load (measured). What the start has made stays for good, so it is not looked
at again; and the rest less often. Circles (a closed connection with its exception, say) still go.
"""

import gc

YOUNG = 20_000  # objects more than at the last look
MIDDLE, OLD = 20, 50  # looks at the younger generation before one at the next


def settle_collector() -> None:
    """Call once, when everything that stays has been made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
