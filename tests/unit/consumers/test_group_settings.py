"""The section `consumers` of config.yaml overrides the class, the command line overrides it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import consumers.__main__ as door
from bridge.errors import ConfigError
from bridge.runtime.config import Config
from consumers import Consumer, Delivery, Trade
from consumers.kit.worker.loading import configured
from consumers.kit.worker.worker import Settings

CONFIG = """
consumers:
  candles: { streams: ["trade.SOL_*"], options: { intervals: "1m" }, lease_s: 20, attempts: 3 }
  other: { concurrency: 4 }
"""


class Plain(Consumer):
    """The purpose of the consumer."""

    name = "plain"
    streams = ("trade.*",)

    def on_trade(self, delivery: Delivery[Trade]) -> None: ...


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Replaces the start of a worker; collects the settings it would have received."""
    found: list[Settings] = []

    async def start(settings: Settings, config: Config) -> None:
        found.append(settings)

    monkeypatch.setattr(door, "_until_stopped", start)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return found


def test_a_group_runs_with_its_settings_and_the_command_line_wins(started: list[Settings]) -> None:
    run = CliRunner().invoke
    assert run(door.cli, ["run", "candles"]).exit_code == 0
    assert run(door.cli, ["run", "candles", "--streams", "trade.*", "--lease", "5"]).exit_code == 0
    assert run(door.cli, ["run", "candles", "--group", "mine", "-o", "intervals=5m"]).exit_code == 0
    first, second, third = started
    assert first.patterns == ("trade.SOL_*",)
    assert (first.consumer.kind.attempts, first.lease_s) == (3, 20)
    assert first.consumer.options == {"intervals": "1m"}
    assert (second.patterns, second.lease_s) == (("trade.*",), 5)
    assert (third.patterns, third.consumer.kind.attempts) == (("trade.*",), 10)
    assert third.consumer.options == {"intervals": "5m"}


def test_settings_that_do_not_go_together_are_refused_with_their_place() -> None:
    assert configured(Plain, "plain", {}) is Plain
    made = configured(Plain, "plain", {"attempts": 2})
    assert (made.attempts, made.__doc__, Plain.attempts) == (2, Plain.__doc__, 10)
    joined = type("Joined", (Plain,), {"mode": "joined"})
    with pytest.raises(ConfigError, match=r"consumers\.j of the configuration: Joined: a joined"):
        configured(joined, "j", {"on_failure": "dead_letter"})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{ candles: { start: tomorrow } }", "config.yaml line 1: consumers.candles.start must be"),
        ("{ candles: { start: '2999-01-01' } }", "consumers.candles.start 2999-01-01 is a time to"),
        ("{ 'a b': { attempts: 3 } }", "consumers.a b must be 1 to 128 letters, digits, dots, _"),
    ],
)
def test_a_wrong_place_or_name_in_the_section_is_refused_where_it_is(
    started: list[Settings], tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "config.yaml").write_text(f"consumers: {text}\n")
    done = CliRunner().invoke(door.cli, ["run", "candles"])
    assert (done.exit_code, started) == (2, [])
    assert sentence in done.output
