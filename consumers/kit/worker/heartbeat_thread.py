"""Heartbeats while a sync handler blocks the event loop, from a thread with its own connection.

Without them a call longer than the lease would lose its entries, or its stream, to another worker,
and so on: the same call would move from worker to worker, and finally count as one that kills its
workers. A call beyond its time limit counts as hanging, and gets no more heartbeats. C code that
holds the interpreter lock blocks this thread, too.
"""

import threading
from types import TracebackType

import redis
from redis.exceptions import RedisError

from consumers.kit.membership import Membership
from consumers.kit.ordered.loop import OrderedLoop
from consumers.kit.redis.scripts import script
from consumers.kit.shared.loop import SharedLoop
from consumers.kit.worker.watchdog import Watchdog


class HeartbeatThread:
    """Enter it on the event loop's thread. Each shard has its own thread, which renews leases; the
    first shard's also sends the worker's heartbeat.
    """

    def __init__(
        self,
        client: redis.Redis,
        watchdog: Watchdog,
        loop: SharedLoop | OrderedLoop,
        membership: Membership,
        *,
        limit_s: float,
        shard: int = 0,
    ) -> None:
        self._shard = shard
        self._client = client
        self._watchdog = watchdog
        self._loop = loop
        self._membership = membership
        self._limit_s = limit_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def __enter__(self) -> "HeartbeatThread":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        beat_s = self._membership.beat_s
        while not self._over.wait(beat_s):
            if beat_s <= self._watchdog.stalled_s <= self._limit_s:
                self._send()

    def _send(self) -> None:
        calls = [(script("renew"), one) for one in self._loop.renewals()]
        if self._shard == 0:
            calls.append((script("heartbeat"), self._membership.alive_call()))
        if not calls:
            return
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for what, (keys, arguments) in calls:
                    pipeline.eval(what.text, len(keys), *keys, *map(str, arguments))
                # A refusal (another worker has the lease) is detected after the call, by the answer
                # to its commit.
                pipeline.execute(raise_on_error=False)
        except RedisError:
            return  # Redis is unavailable: the event loop logs it after the call
