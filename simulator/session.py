"""One client's session: its requests, its subscriptions, and the answers. Pure.

A success has no answer. Neither has an unknown symbol; an unknown kind of stream, an invalid window
or a bad signature gets an error frame, and the session continues. Knows neither sockets nor clocks
nor the source of data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from simulator import frames, signing
from simulator.candles import INTERVALS
from simulator.windows import WINDOWS_MS

PARSE_ERROR = frames.error(4002, "Parse error")
INVALID_SIGNATURE = frames.error(4003, "Invalid signature")
INVALID_STREAM = frames.error(4006, "Invalid stream")
INVALID_DEPTH_WINDOW = frames.error(4008, "Invalid depth window")

SYMBOL_TYPES = frozenset(
    {
        "trade",
        "bookTicker",
        "ticker",
        "markPrice",
        "openInterest",
        "liquidation",
        "externalTicker",
        "stockPrice",
        "stockIndicativeQuote",
    }
)
ACCOUNT_TYPES = frozenset({"orderUpdate", "positionUpdate", "balanceUpdate", "rfqUpdate"})
WINDOW_FORM = re.compile(r"\d+ms")
WINDOW_NAMES = frozenset(f"{ms}ms" for ms in WINDOWS_MS)


class Topic(NamedTuple):
    """A stream as subscribed by one client: private ones belong to an account."""

    stream: str
    account: str | None = None


@dataclass(slots=True)
class Answer:
    """The result of a request: error frames to send, topics to start and to stop."""

    errors: list[bytes] = field(default_factory=list)
    started: list[Topic] = field(default_factory=list)
    stopped: list[Topic] = field(default_factory=list)


class Session:
    """The state of one session."""

    def __init__(
        self,
        accepted_keys: Collection[str],
        refusal: Callable[[str], bytes | None] | None = None,
    ) -> None:
        """`refusal` returns the error frame for a stream's name, or None."""
        self._accepted_keys = accepted_keys
        self._refusal = refusal or stream_error
        self.topics: set[Topic] = set()

    def forget(self, streams: Collection[str]) -> None:
        """Remove these subscriptions without a message to the client."""
        self.topics = {topic for topic in self.topics if topic.stream not in streams}

    def receive(self, text: str | bytes, now_ms: int) -> Answer:
        """Process one message of the client."""
        request = _parsed(text)
        if request is None:
            return Answer(errors=[PARSE_ERROR])
        if request["method"] == "SUBSCRIBE":
            return self._subscribe(request, now_ms)
        return self._unsubscribe(request["params"])

    def _subscribe(self, request: dict[str, Any], now_ms: int) -> Answer:
        answer = Answer()
        names: list[str] = request["params"]
        account = None
        if any(name.startswith("account.") for name in names):
            account = self._signer(request, now_ms)
            if account is None:
                answer.errors.append(INVALID_SIGNATURE)
        for name in names:
            is_private = name.startswith("account.")
            if is_private and account is None:
                continue
            if (refusal := self._refusal(name)) is not None:
                if refusal != INVALID_SIGNATURE or refusal not in answer.errors:
                    answer.errors.append(refusal)  # a signature is one for the whole request
                continue
            topic = Topic(name, account if is_private else None)
            if topic not in self.topics:
                self.topics.add(topic)
                answer.started.append(topic)
        return answer

    def _unsubscribe(self, names: list[str]) -> Answer:
        """Unsubscribe; needs no signature, not even for private streams."""
        stopped = [topic for topic in self.topics if topic.stream in names]
        self.topics.difference_update(stopped)
        return Answer(stopped=stopped)

    def _signer(self, request: dict[str, Any], now_ms: int) -> str | None:
        """The account whose key signed the request, or None."""
        signature = request.get("signature")
        good = signing.accepts(
            signature, "subscribe", accepted_keys=self._accepted_keys, now_ms=now_ms
        )
        return str(signature[0]) if good and isinstance(signature, list) else None


def windowed(stream: str) -> bool:
    """Whether a depth stream's name contains a window, valid or not."""
    return WINDOW_FORM.fullmatch(stream.split(".", 2)[1]) is not None


def stream_error(name: str) -> bytes | None:
    """The error frame for a stream's name, or None; also None for an unknown symbol."""
    kind, _, rest = name.partition(".")
    if kind == "depth":
        window = rest.partition(".")[0]
        bad = WINDOW_FORM.fullmatch(window) and window not in WINDOW_NAMES
        return INVALID_DEPTH_WINDOW if bad else None
    if kind == "kline":
        return None if rest.partition(".")[0] in INTERVALS else INVALID_STREAM
    if kind == "account":
        return None if rest.partition(".")[0] in ACCOUNT_TYPES else INVALID_STREAM
    return None if kind in SYMBOL_TYPES else INVALID_STREAM


def _parsed(text: str | bytes) -> dict[str, Any] | None:
    """The request, or None when it is not JSON, or of another shape."""
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match request:
        case {"method": "SUBSCRIBE" | "UNSUBSCRIBE", "params": [*names]} if all(
            isinstance(name, str) for name in names
        ):
            return dict(request)
        case _:
            return None
