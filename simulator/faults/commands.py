"""The commands for faults: one frozen model for each, validated once. Pure.

A command is a JSON object whose `fault` names it. `reading` turns it into a model or into a
sentence about its mistake.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from simulator.client import How

OPEN = "open"  # the connections that exist when the fault begins

Connection = Annotated[int, Field(ge=1)] | Literal["open"]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Share = Annotated[float, Field(gt=0, le=1)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Status = Annotated[int, Field(ge=300, le=599)]


class Command(BaseModel):
    """Base of all faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    fault: str


class Lasting(Command):
    """A fault with a duration; it lasts that long, or until it is ended."""

    for_s: Seconds | None = None


class OnFrames(Lasting):
    """Affects frames of streams (a name or a pattern like `trade.*`) on their way to connections.

    `share` of them at random, `count` of them at most.
    """

    stream: Pattern
    connection: Connection | None = None
    share: Share = 1.0
    count: Count | None = None


class Drop(OnFrames):
    """Frames are lost on the way to a connection."""

    fault: Literal["drop"]


class Hide(OnFrames):
    """Frames are sent to no connection, though their events have happened."""

    fault: Literal["hide"]
    connection: None = None


class Duplicate(OnFrames):
    """Frames arrive more than once."""

    fault: Literal["duplicate"]
    times: Annotated[int, Field(ge=1, le=1000)] = 1


class Delay(OnFrames):
    """Frames arrive later, possibly after those that follow them."""

    fault: Literal["delay"]
    delay_s: Seconds


class Reorder(OnFrames):
    """A frame is sent after the next `by` frames of its stream, or after `within_s` at latest."""

    fault: Literal["reorder"]
    by: Annotated[int, Field(ge=1, le=1000)] = 1
    within_s: Seconds = 1.0


class Form(StrEnum):
    """What is sent instead of a frame."""

    GARBAGE = "garbage"
    BINARY = "binary"
    INVALID_UTF8 = "invalid_utf8"
    TRUNCATED = "truncated"
    DEEP = "deep"
    GIANT = "giant"


class Corrupt(OnFrames):
    """Something else is sent instead of a frame."""

    fault: Literal["corrupt"]
    form: Annotated[Form, Field(strict=False)] = Form.GARBAGE
    size: Annotated[int, Field(ge=1, le=64 * 1024 * 1024)] = 2 * 1024 * 1024


class Then(StrEnum):
    """What happens to the frames of a stall when it ends."""

    LOST = "lost"
    LATE = "late"


class Stall(Lasting):
    """Frames stop without an error: on one stream, or on a whole connection.

    On a whole connection (no `stream`) Pings are not answered either, unless `pongs` is true.
    """

    fault: Literal["stall"]
    stream: Pattern | None = None
    connection: Connection | None = None
    pongs: bool = False
    then: Annotated[Then, Field(strict=False)] = Then.LOST


class NoPongs(Lasting):
    """The client's Pings are not answered; everything else works."""

    fault: Literal["no_pongs"]
    connection: Connection | None = None


class SlowNetwork(Lasting):
    """A connection carries at most this number of bytes a second."""

    fault: Literal["slow_network"]
    connection: Connection | None = None
    bytes_per_s: Annotated[int, Field(ge=1, le=1_000_000_000)]


class Close(Command):
    """Connections end."""

    fault: Literal["close"]
    connection: Connection = "open"
    how: Annotated[How, Field(strict=False)] = How.CLOSE
    code: Annotated[int, Field(ge=1000, le=4999)] = 1001
    reason: Annotated[str, StringConstraints(max_length=100)] = ""


class ErrorFrame(Command):
    """An error frame without a request."""

    fault: Literal["error"]
    connection: Connection = "open"
    code: int = 4001
    message: str = "Internal error"


class Forget(Command):
    """The exchange drops subscriptions without notice."""

    fault: Literal["forget"]
    stream: Pattern
    connection: Connection = "open"


class Refusal(StrEnum):
    """How a handshake fails: with a status, with a reset, or without an answer."""

    STATUS = "status"
    RESET = "reset"
    HANG = "hang"


class Refuse(Lasting):
    """New connections are refused."""

    fault: Literal["refuse"]
    how: Annotated[Refusal, Field(strict=False)] = Refusal.STATUS
    status: Status = 503
    retry_after_s: Annotated[int, Field(ge=0, le=86_400)] | None = None
    count: Count | None = None


class Reject(Lasting):
    """Subscriptions are answered by an error frame."""

    fault: Literal["reject"]
    stream: Pattern
    code: int = 4006
    message: str | None = None
    count: Count | None = None


class Ignore(Lasting):
    """Subscriptions are accepted silently, and no data follows."""

    fault: Literal["ignore"]
    stream: Pattern
    count: Count | None = None


class Skip(Lasting):
    """The market skips ids. Repeated each `every_s`, if given."""

    fault: Literal["skip"]
    stream: Annotated[str, StringConstraints(pattern=r"^(trade|depth)\.[A-Za-z0-9._]+$")]
    ids: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1
    every_s: Annotated[float, Field(ge=0.001, le=86_400)] | None = None


class List(Command):
    """A market is listed."""

    fault: Literal["list"]
    symbol: str


class Delist(Command):
    """A market is delisted."""

    fault: Literal["delist"]
    symbol: str


class Burst(Lasting):
    """The market emits this number of core frames a second."""

    fault: Literal["burst"]
    rate: Annotated[float, Field(gt=0, le=1_000_000)]


class ClockSkew(Lasting):
    """The exchange's clock is off by this number of ms: its time endpoint, E and T."""

    fault: Literal["clock_skew"]
    ms: Annotated[int, Field(ge=-(10**12), le=10**12)]


class OnRest(Lasting):
    """Affects REST requests with a matching path; `share` of them at random, `count` at most."""

    path: Pattern = "*"
    share: Share = 1.0
    count: Count | None = None


class RestStatus(OnRest):
    """REST answers with an error."""

    fault: Literal["rest_status"]
    status: Annotated[int, Field(ge=200, le=599)] = 503
    retry_after_s: Annotated[int, Field(ge=0, le=86_400)] | None = None
    body: Literal["json", "text", "html", "empty"] = "json"


class RestSlow(OnRest):
    """REST answers late."""

    fault: Literal["rest_slow"]
    delay_s: Seconds


class RestStale(OnRest):
    """Depth and trades come from a cache that is up to `age_s` old, unless the request has a
    parameter that the endpoint does not know.
    """

    fault: Literal["rest_stale"]
    age_s: Seconds = 3600.0


class Broken(StrEnum):
    """What is sent instead of a REST reply."""

    HTML = "html"
    TRUNCATED = "truncated"
    GARBAGE = "garbage"
    EMPTY = "empty"
    DEEP = "deep"
    RESET = "reset"
    HANG = "hang"


class RestBroken(OnRest):
    """REST replies with status 200 and an invalid body, or with nothing."""

    fault: Literal["rest_broken"]
    form: Annotated[Broken, Field(strict=False)] = Broken.HTML


COMMANDS: tuple[type[Command], ...] = (
    Drop,
    Hide,
    Duplicate,
    Delay,
    Reorder,
    Corrupt,
    Stall,
    NoPongs,
    SlowNetwork,
    Close,
    ErrorFrame,
    Forget,
    Refuse,
    Reject,
    Ignore,
    Skip,
    List,
    Delist,
    Burst,
    ClockSkew,
    RestStatus,
    RestSlow,
    RestStale,
    RestBroken,
)
