"""Queues for tests, and their peers."""

from bridge.contract.causes import GapCause
from bridge.contract.stream_types import STREAM_SPECS
from bridge.contract.streams import Stream
from bridge.core.content import Content
from bridge.core.peers import PEER_WAIT_US, Peers, PeerStatus
from bridge.core.queue import Resume
from bridge.core.sequenced import Sequenced
from bridge.core.tail import Tail, identify
from bridge.runtime.keyspace import KeySpace
from tests.support.slots import NOW_US, ORDERS, TRADES, fields, trade

HOLD_US = 2_000_000


def sequenced(
    *numbers: int,
    confirmed: str = "0-0",
    stream: Stream = TRADES,
    peers: Peers | None = None,
    replay_until: int = 0,
) -> Sequenced:
    """A queue with these trades pending."""
    resume = Resume(0, replay_until, confirmed)
    queue = Sequenced(stream, peers or Peers(), resume, HOLD_US)
    for number in numbers:
        queue.put(trade(number))
    return queue


def content(
    stream: Stream = ORDERS,
    *,
    peers: Peers | None = None,
    confirmed: str = "0-0",
    replay_until: int = 0,
) -> Content:
    return Content(stream, peers or Peers(), Resume(0, replay_until, confirmed))


def status(instance: str, beat: int = 1, **facts: object) -> PeerStatus:
    reported = {"instance": instance, "session": instance, "beat": beat, "at_us": NOW_US, **facts}
    return PeerStatus.model_validate(reported)


def poll(peers: Peers, *others: PeerStatus, stream: Stream = TRADES, **marks: int) -> Peers:
    """Poll: bridge `m` receives the stream, and `others` are the statuses of its peers."""
    me = status("m", received={stream.name: NOW_US})
    peers.update(me, [me, *others], marks, redis_us=NOW_US, now_us=NOW_US)
    return peers


def without_the_first_shard() -> Peers:
    """Peers in four shards; the first one, with all statuses, has been unavailable for so long that
    bridges continue without it.
    """
    peers = Peers(KeySpace("{b}:", 4))
    peers.expect()
    peers.first_poll_failed(NOW_US - PEER_WAIT_US)
    assert peers.first_poll_failed(NOW_US)
    return peers


def tail(last: str, *entries: tuple[str, dict[str, str]]) -> Tail:
    """The end of a stream as the outbox reads it."""
    known = (identify(_stream_of(named), named) for _, named in entries)
    return Tail(last, [one for one in known if one is not None])


def _stream_of(named: dict[str, str]) -> Stream:
    """A stream that may hold such an entry."""
    kinds = (kind for kind, spec in STREAM_SPECS.items() if named.get("type") in spec.event_names)
    return Stream("test", next(kinds, ORDERS.type))


def sent(queue: Content, now_us: int = NOW_US) -> list[dict[str, str]]:
    """The entries that the queue sends at this time."""
    batch = queue.take(now_us, 100)
    return [fields(slot) for slot in batch.slots] if batch is not None else []


def order_ids(queue: Content, now_us: int = NOW_US) -> list[str]:
    return [named["order_id"] for named in sent(queue, now_us)]


def put_outage(queue: Content, from_us: int, to_us: int) -> None:
    """Put an outage into the queue: nothing was received between these times."""
    queue.put_outage(
        from_us=from_us,
        to_us=to_us,
        cause=GapCause.CONNECTION_LOST,
        received_us=to_us,
        position=0,
        at_us=to_us,
    )
