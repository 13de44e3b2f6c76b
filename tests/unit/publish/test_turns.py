"""After an outage more waits than goes out at once: every stream gets its turn."""

import random
from typing import NoReturn

import pytest

from bridge.contract.streams import parse_stream
from bridge.pipeline.intake import Intake
from bridge.publish import publisher as publisher_module
from bridge.publish.durability import Durability
from bridge.publish.publisher import Limits, Publisher, PublishSettings
from bridge.publish.wire import Target
from bridge.runtime.backoff import Backoff
from tests.support import frames
from tests.support.items import answer

NOW_US = 1790915531026999


def no_loss() -> NoReturn:
    raise AssertionError("nothing was lost")


def make_publisher(intake: Intake) -> Publisher:
    settings = PublishSettings(
        target=Target.from_url("redis://127.0.0.1:1/0"),
        key_prefix="",
        batch_entries=2,
        connect_timeout_s=1,
        command_timeout_s=1,
        account_fingerprint="",
        durability=Durability(),
    )
    return Publisher(
        intake,
        settings,
        lambda _: Limits(),
        lambda: NOW_US,
        Backoff(0.1, 1.0, random.Random(1)),
        before_send=lambda: None,
        on_loss=no_loss,
    )


def test_streams_that_were_left_out_come_first_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publisher_module, "MAX_FLUSH_ITEMS", 4)
    names = [f"trade.{market}" for market in ("A_USDC", "B_USDC", "C_USDC", "D_USDC", "E_USDC")]
    intake = Intake(map(parse_stream, names), hold_us=0, snapshot_every=0, ask=lambda _: None)
    intake.opened(1, names)
    for name in names:
        for number in range(100, 110):
            frame = frames.TRADE.replace("BTC_USDC_PERP", name.removeprefix("trade."))
            intake.hear(frame.replace("99419870", str(number)), NOW_US, 1, 0)
    publisher = make_publisher(intake)

    went: list[str] = []
    for _ in range(3):
        for line, items in publisher._take(NOW_US):
            went.append(line.stream.symbol[0])
            last = f"9-{items[-1].position}0"
            line.settle(answer("ok", last, "+" * len(items)), NOW_US)

    assert "".join(went) == "ABCDEA"
