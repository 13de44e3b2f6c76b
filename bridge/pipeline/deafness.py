"""When nobody was listening (pure): from when to when each unnumbered stream was not heard.

Numbered streams need none of this, their numbers tell. A stream may be heard over several
connections at once; it is deaf only while none of them listens. A connection claims to have heard
everything up to the exchange's own newest time on it, or up to its last answer to a question of
ours (where that took long: up to the question), less what may have been under way: never more,
since frames stuck in the network when a connection breaks are lost inside that time. So a
connection that took over counts from when it was answered, and what lies between the claim of the
one before and that moment is deafness, even where both were open at the time. Where something ticks
on it, it counts from its first message behind that answer: a server may answer and be stuck.

The exchange may have forgotten one subscription while the connection went on. Where a stream's own
rhythm would have told that in time, deafness therefore begins at its last message: nothing of it
was heard since, and why cannot be known any more. And what one connection brings of such a stream
tells of another that did not bring it. A whole connection may be stuck, though questions are
answered on it: where something ticks, that shows as soon as it brings something again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bridge.pipeline.ear import (
    JITTER_US,
    PAUSE_US,
    RHYTHMIC,
    SKEW_US,
    TICK_US,
    TICKING,
    UNSURE_US,
    Ear,
    Stretch,
    skew_us,
)
from bridge.pipeline.items import Recent
from bridge.pipeline.past import Deaf, Past, rhythmic

LIVE_US = TICK_US + UNSURE_US  # a connection that ticked so lately tells how late messages are
UNSUBSCRIBED = "unsubscribed"
SILENT = "silent"
# in `state`, in this order
_OF_AN_EAR = (
    "newest_us", "answered_us", "spoken_us", "ticked_at_us", "first_us", "ticked_us", "streams",
    "unproven", "answers", "beside",
)  # fmt: skip


class Found(NamedTuple):
    """Streams that nobody hears any more, and deafness that is found out."""

    unheard: Sequence[str] = ()
    deaf: Sequence[Deaf] = ()


NOTHING = Found()


class Deafness:
    """Follows the connections of one bridge by their numbers."""

    def __init__(self) -> None:
        self.ears: dict[int, Ear] = {}
        self.overlaps = False  # may a message come that was heard over another connection before?
        self._is_doubled = False  # is any stream on two connections just now?
        self._doubled_us = 0  # the last message (our clock) while one was
        self._past = Past()

    def opened(self, connection: int, streams: Iterable[str]) -> None:
        """A connection was made for these streams; what it hears begins anew."""
        self.ears[connection] = Ear(dict.fromkeys(streams, 0))
        self._note_overlaps()

    def changed(self, connection: int, streams: Sequence[str]) -> Found:
        """A connection is to hear these streams from now on."""
        ear = self.ears.get(connection)
        if ear is None:
            return NOTHING
        gone = [name for name in ear.streams if name not in set(streams)]
        left = {name: self._known(ear, name) for name in gone}
        ear.streams = {name: ear.streams.get(name, 0) for name in streams}
        ear.unproven = {name: us for name, us in ear.unproven.items() if name in ear.streams}
        self._note_overlaps()
        found = [deaf for name in gone for deaf in self._left(name, left[name], UNSUBSCRIBED)]
        return Found([name for name in gone if not self._listeners(name)], found)

    def doubted(self, connection: int, name: str, since_us: int) -> Found:
        """A stream that should speak has been silent on a connection since then (0: since it was
        answered): it is not listened to there until the next answer (and the first message behind
        it, where it ticks). Nor is any other, where it ticks and nothing else came since.
        """
        ear = self.ears.get(connection)
        if ear is None:
            return NOTHING
        ear.unproven.pop(name, None)
        if not ear.streams.get(name):
            return NOTHING
        begun_us = ear.streams[name]
        heard = {name: Stretch(begun_us, max(since_us, begun_us), since_us)}
        if name.startswith(TICKING) and ear.stands_still(since_us):
            heard = {
                each: known for each in ear.streams if (known := self._known(ear, each))
            } | heard
        ear.streams |= dict.fromkeys(heard, 0)
        found = [deaf for each in heard for deaf in self._left(each, heard[each], SILENT)]
        return Found([each for each in heard if not self._listeners(each)], found)

    def lost(self, connection: int, cause: str) -> Found:
        """A connection is gone."""
        ear = self.ears.pop(connection, None)
        if ear is None:
            return NOTHING
        self._note_overlaps()
        found: list[Deaf] = []
        for name in ear.streams:
            if not ear.streams[name] and ear.newest_us and not self._listeners(name):
                # it was never answered, so what it heard began at an unknown moment
                self._past.begun_by(name, ear.newest_us - UNSURE_US, cause)
            heard = self._known(ear, name)
            is_whole = heard is None or heard == ear.stretch(name)
            found += self._left(name, heard, cause if is_whole else SILENT)
        return Found([name for name in ear.streams if not self._listeners(name)], found)

    def heard(self, ear: Ear, name: str, event_us: int, received_us: int) -> Found:
        """A message of that time: what it shows that this connection has not heard before."""
        found = NOTHING
        if event_us > ear.newest_us + PAUSE_US and ear.stood_still(event_us, received_us):
            last_us, again_us = ear.ticked_us - JITTER_US, event_us + JITTER_US
            found = self._hear_anew(ear, list(ear.streams), again_us, last_us)
        elif (
            self.overlaps
            and event_us > ear.spoken_us.get(name, event_us) + SKEW_US
            and 0 < self._missed_us(ear, name) < event_us - skew_us(name)
        ):
            found = self._hear_anew(ear, [name], event_us, event_us)
        if event_us > ear.newest_us:
            ear.newest_us = event_us
            if ear.unproven:
                answered, ear.unproven = ear.unproven, {}
                deaf = self._begin(ear, _from_message_on(answered, event_us))
                found = Found(found.unheard, [*found.deaf, *deaf])
        if name.startswith(TICKING) and event_us > ear.ticked_us:
            ear.ticked_us, ear.ticked_at_us = event_us, received_us
        ear.spoken_us[name] = event_us
        ear.first_us.setdefault(name, event_us)
        return found

    def ends_overlap(self, received_us: int) -> bool:
        """A message came while doubles were possible: are they possible no more? It is told by the
        times of receiving, as the journal has them.
        """
        if self._is_doubled:
            self._doubled_us = received_us
        elif received_us - self._doubled_us > Recent.WITHIN_US:
            self.overlaps = False
        return not self.overlaps

    def answered(
        self,
        connection: int,
        at_us: int,
        received_us: int,
        unasked: Collection[str] = (),
        until_us: int | None = None,
    ) -> Iterator[Deaf]:
        """The exchange has answered on a connection: it has what was subscribed to before (all but
        `unasked`), and we have heard whatever it sent before. `until_us`: it may have answered as
        long ago as then, when it was asked, and what it sent since may be under way; 0: it did not
        answer, but time tells that it has what it was asked for. None: it answered just now.
        """
        ear = self.ears.get(connection)
        if ear is None:
            return
        if until_us != 0:
            ear.answers += 1
        new = [name for name, since_us in ear.streams.items()
               if not since_us and name not in unasked]  # fmt: skip
        if ear.ticks():
            ear.unproven = {name: ear.unproven.get(name, at_us) for name in new}
            if not ear.ticked_us:
                ear.ticked_us, ear.ticked_at_us = at_us, received_us
            return
        # messages may lag behind the exchange's clock: ticks tell where they are just now
        proven_us = min(at_us, self._newest_tick_us(received_us) or at_us)
        if until_us is not None:
            proven_us = min(proven_us, until_us)
        ear.answered_us = max(ear.answered_us, proven_us, self._reached_us(connection, ear))
        yield from self._begin(ear, dict.fromkeys(new, at_us))

    def unanswered(self, connection: int) -> Sequence[str]:
        """The streams of a connection that the next answer is about."""
        ear = self.ears.get(connection)
        if ear is None:
            return ()
        return [name for name, since_us in ear.streams.items()
                if not since_us and name not in ear.unproven]  # fmt: skip

    def may_leave(self, connection: int) -> bool:
        """Would the end of this connection leave no deafness that time could still disprove, those
        that are leaving gone too?
        """
        ear = self.ears.get(connection)
        if ear is None:
            return True
        return all(
            self._missed_us(ear, name) <= ear.heard_until_us(name)
            and any(
                not other.is_leaving and other.streams[name] <= ear.heard_until_us(name)
                for other in self._listeners(name, beside=ear)
            )
            for name, since_us in ear.streams.items()
            if since_us
        )

    def leaving(self, connection: int) -> None:
        """The connection is about to be closed: until its end it hears on."""
        if ear := self.ears.get(connection):
            ear.is_leaving = True

    def resume(self, marks: Mapping[str, int]) -> Iterator[Deaf]:
        """An earlier bridge has heard each stream up to its mark (µs)."""
        return self._past.resume(marks)

    def settle_by(self, other: "Deafness", names: Iterable[str]) -> Iterator[Deaf]:
        """Another account of the same connections knows since when these streams are listened to:
        what it has heard of others told it.
        """
        for name in names:
            begun_us = [ear.streams[name] for ear in other._listeners(name)]
            if begun_us:
                yield from self._past.listened_to(name, min(begun_us))

    def listeners(self, name: str) -> int:
        """How many connections listen to the stream."""
        return len(self._listeners(name))

    def is_wanted(self, name: str) -> bool:
        """Is there a connection that is to hear the stream, whether it listens yet or not?"""
        return any(name in ear.streams for ear in self.ears.values())

    def open_connections(self) -> Sequence[int]:
        """Connections that were opened and not lost."""
        return list(self.ears)

    def state(self) -> dict[str, object]:
        """What is known of deafness, as plain values."""
        return {
            "ears": {
                str(number): [
                    ear.newest_us, ear.answered_us, rhythmic(ear.spoken_us), ear.ticked_at_us,
                    rhythmic(ear.first_us), ear.ticked_us, ear.streams, ear.unproven,
                    ear.answers, {str(other): answers for other, answers in ear.beside.items()},
                ]
                for number, ear in self.ears.items()
            },
            **self._past.state(),
        }  # fmt: skip

    def restore(
        self,
        connections: Mapping[str, Mapping[str, int]] | None = None,
        deafness: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Begin with these connections open (stream → since when it is listened to), and with what
        `state` said.
        """
        known = deafness or {}
        for number, streams in (connections or {}).items():
            ear = self.ears[int(number)] = Ear(dict(streams))
            # earlier versions knew less: what they did not say stays as it is
            for what, value in zip(_OF_AN_EAR, known.get("ears", {}).get(number, ()), strict=False):
                setattr(ear, what, value)
            ear.beside = {int(other): answers for other, answers in ear.beside.items()}
        self._note_overlaps()
        self._past.restore(known)

    def heard_up_to_us(self) -> dict[str, int]:
        """Each stream that is listened to, and up to when all of it has been heard."""
        names = {name for ear in self.ears.values() for name, since_us in ear.streams.items()
                 if since_us}  # fmt: skip
        return {name: self._covered_us(name) for name in names}

    def certain_up_to_us(self) -> dict[str, int]:
        """The same, as far as it would still be believed if all connections broke now; and for
        streams that nobody listens to any more.
        """
        return self._past.certain_up_to_us() | {
            name: self._covered_us(name, Ear.certain_until_us) for name in self.heard_up_to_us()
        }

    def _note_overlaps(self) -> None:
        names = [name for ear in self.ears.values() for name in ear.streams]
        self._is_doubled = len(names) > len(set(names))
        self.overlaps = self.overlaps or self._is_doubled

    def _reached_us(self, connection: int, ear: Ear) -> int:
        """The second answer behind the beginning of another was asked for after that, whatever the
        clocks say: both have listened then.
        """
        return max(
            (
                max(other.streams.values(), default=0) + UNSURE_US
                for other in self.ears.values()
                if ear.answers - other.beside.get(connection, ear.answers) >= 2
            ),
            default=0,
        )

    def _newest_tick_us(self, received_us: int) -> int:
        """The newest message of the connections whose ticks come just now; 0 where none do."""
        return max(
            (
                ear.newest_us
                for ear in self.ears.values()
                if received_us - ear.ticked_at_us <= LIVE_US and ear.ticks()
            ),
            default=0,
        )

    def _listeners(self, name: str, beside: Ear | None = None) -> list[Ear]:
        return [ear for ear in self.ears.values() if ear is not beside and ear.streams.get(name)]

    def _missed_us(self, ear: Ear, name: str) -> int:
        """When another connection heard something of this stream that this one has not; 0: none."""
        if not name.startswith(RHYTHMIC):
            return 0
        missed_us = [ear.missed(name, other) for other in self._listeners(name, beside=ear)]
        return min(filter(None, missed_us), default=0)

    def _known(self, ear: Ear, name: str) -> Stretch | None:
        """What it has heard of this stream, if anything, less what it has missed there."""
        heard = ear.stretch(name)
        if heard is not None and 0 < self._missed_us(ear, name) <= heard.to_us:
            return heard.until(heard.spoken_us)
        return heard

    def _hear_anew(self, ear: Ear, names: Sequence[str], again_us: int, until_us: int) -> Found:
        """Of these streams nothing was heard for a while, since `until_us` at the latest."""
        heard = {name: known for name in names if (known := ear.stretch(name))}
        found: list[Deaf] = []
        for name, known in heard.items():
            last_us = known.spoken_us if self._missed_us(ear, name) else until_us
            ear.streams[name] = 0
            found += self._left(name, known.until(last_us), SILENT)
        found += self._begin(ear, dict.fromkeys(heard, again_us))
        return Found([name for name in heard if not self._listeners(name, beside=ear)], found)

    def _begin(self, ear: Ear, since_us: Mapping[str, int]) -> Iterator[Deaf]:
        """These streams are listened to on a connection, each from then on."""
        if since_us:
            ear.beside = {number: other.answers for number, other in self.ears.items()}
        for name, at_us in since_us.items():
            ear.first_us.pop(name, None)
            ear.streams[name] = at_us
            yield from self._past.listened_to(name, at_us)

    def _left(self, name: str, heard: Stretch | None, cause: str) -> Iterator[Deaf]:
        """One that heard so much of the stream is gone."""
        if heard is None:
            return iter(())
        begun_us = sorted(ear.streams[name] for ear in self._listeners(name))
        return self._past.left(name, heard, begun_us, cause)

    def _covered_us(
        self, name: str, until_us: Callable[[Ear, str], int] = Ear.heard_until_us
    ) -> int:
        """Up to when the stream has been heard without a break by those who listen now, and by
        those who are gone.
        """
        ears = sorted(self._listeners(name), key=lambda ear: ear.streams[name])
        covered_us = max(self._past.until_us(name), ears[0].streams[name])
        for ear in ears:
            if ear.streams[name] <= covered_us:
                covered_us = max(covered_us, until_us(ear, name))
        return covered_us


def _from_message_on(answered: Mapping[str, int], event_us: int) -> Mapping[str, int]:
    """Since when streams are listened to, by the first message behind an answer: messages may lag
    behind the exchange's clock, and the server may have been stuck since.
    """
    least_us, most_us = event_us + JITTER_US, event_us + UNSURE_US
    return {name: min(max(us, least_us), most_us) for name, us in answered.items()}
