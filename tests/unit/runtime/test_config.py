"""Configuration: defaults, the order of sources, and messages for mistakes."""

import contextlib
import time
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge.errors import ConfigError
from bridge.runtime.config import (
    RETENTION_ENTRIES,
    Config,
    Exchange,
    Keep,
    Redis,
    config_shape,
    load_config,
)
from bridge.runtime.config_errors import leaves
from bridge.runtime.keyspace import KeySpace

ROOT = Path(__file__).parents[3]


def load(text: str, tmp_path: Path, **environ: str) -> Config:
    file = tmp_path / "config.yaml"
    file.write_text(text, "utf-8")
    return load_config(file, env_file=None, environ=environ)


def refusal(text: str, tmp_path: Path, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, tmp_path, **environ)
    return str(caught.value).replace(str(tmp_path) + "/", "")


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """The differences of two configurations, such as `retention.trade.max_entries: 1, not 2`."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one | other:
            yield from differences(one.get(name), other.get(name), f"{path}.{name}".lstrip("."))
    elif one != other:
        yield f"{path}: {one}, not {other}"


def test_the_shipped_file_states_exactly_the_defaults() -> None:
    shipped = load_config(ROOT / "config.yaml", env_file=None, environ={})
    changed = shipped.model_dump(), Config().model_dump()

    assert list(differences(*changed)) == []
    assert shipped == Config()


def test_the_shipped_file_names_every_setting_but_the_host_name() -> None:
    text = (ROOT / "config.yaml").read_text("utf-8")
    assert [path for path in leaves(config_shape()) if f"{path[-1]}:" not in text] == []


def test_the_example_of_env_loads_unchanged() -> None:
    assert load_config(None, ROOT / ".env.example", {}) == Config()


def test_the_examples_inside_the_example_of_env_load_too(tmp_path: Path) -> None:
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    env_file = tmp_path / ".env"
    env_file.write_text("\n".join(line.removeprefix("# ") for line in lines if "BRIDGE_" in line))
    config = load_config(None, env_file, {})
    assert config.log.level == "debug"
    assert config.stream_names == ("trade.SOL_USDC", "depth.SOL_USDC", "account.orderUpdate")


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(None, ".env", {}) == Config()


def test_a_given_configuration_file_must_exist() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist: give another file"):
        load_config("nowhere.yaml", None, {})


def test_default_streams_are_types_times_markets_each_once() -> None:
    names = Config().stream_names
    assert len(names) == len(set(names)) == 29
    assert names[:5] == (
        "trade.BTC_USDC",
        "depth.BTC_USDC",
        "bookTicker.BTC_USDC",
        "ticker.BTC_USDC",
        "kline.1m.BTC_USDC",
    )
    assert names[-2:] == ("markPrice.SOL_USDC_PERP", "openInterest.SOL_USDC_PERP")


def test_streams_are_names_and_groups_in_the_order_written(tmp_path: Path) -> None:
    text = """
streams:
  - account.orderUpdate
  - types: [trade, depth.200ms]
    markets: [SOL_USDC]
  - trade.SOL_USDC
  - liquidation
"""
    assert load(text, tmp_path).stream_names == (
        "account.orderUpdate",
        "trade.SOL_USDC",
        "depth.200ms.SOL_USDC",
        "liquidation",
    )


def test_environment_over_env_file_over_file_over_defaults(tmp_path: Path) -> None:
    file, env_file = tmp_path / "config.yaml", tmp_path / ".env"
    file.write_text("publish: {hold_s: 3, drain_s: 3, batch_entries: 3}")
    env_file.write_text("BRIDGE_PUBLISH__HOLD_S=4\nBRIDGE_PUBLISH__DRAIN_S=4\n")
    config = load_config(file, env_file, {"BRIDGE_PUBLISH__HOLD_S": "5"})
    assert config.publish.model_dump() == {
        "batch_entries": 3,
        "linger_ms": 0.0,
        "hold_s": 5.0,
        "durability": {"level": "memory", "replicas": 1, "timeout_s": 1.0},
        "recover_s": 90.0,
        "buffer_bytes": 268_435_456,
        "drain_s": 4.0,
    }


@pytest.mark.parametrize(
    ("name", "value", "path", "expected"),
    [
        ("BRIDGE_REDIS__URL", "embedded", "redis.url", "embedded"),
        ("bridge_redis__url", "embedded", "redis.url", "embedded"),
        ("BRIDGE_EXCHANGE__COMPRESSION", "true", "exchange.compression", True),
        ("BRIDGE_EMBEDDED__MAXMEMORY_MB", "null", "embedded.maxmemory_mb", None),
        ("BRIDGE_EMBEDDED__MAXMEMORY_MB", "512", "embedded.maxmemory_mb", 512),
        ("BRIDGE_LOG__LEVEL", "DEBUG", "log.level", "debug"),
        ("BRIDGE_STREAMS", '["trade.SOL_USDC"]', "streams", ("trade.SOL_USDC",)),
        ("BRIDGE_INSTANCE", "tokyo-1", "instance", "tokyo-1"),
        ("BRIDGE_REDIS__URL", "", "redis.url", "redis://127.0.0.1:6379/0"),
    ],
)
def test_variables_set_any_setting(name: str, value: str, path: str, expected: object) -> None:
    found: object = load_config(None, None, {name: value})
    for part in path.split("."):
        found = getattr(found, part)
    assert found == expected


def test_retention_of_one_type_leaves_the_others_and_its_own_other_limit(tmp_path: Path) -> None:
    config = load("retention: {trade: {max_age_s: 3600}}", tmp_path)
    assert config.keep("trade") == Keep(max_entries=200_000, max_age_s=3600)
    assert config.keep("ticker") == Keep(max_entries=20_000)


def test_retention_is_a_variable_too_and_null_is_off() -> None:
    config = load_config(
        None,
        None,
        {
            "BRIDGE_RETENTION__BOOKTICKER__MAX_ENTRIES": "null",
            "BRIDGE_RETENTION__BOOKTICKER__MAX_AGE_S": "60",
            "BRIDGE_RETENTION__account.orderUpdate": '{"max_entries": 7}',
        },
    )
    assert config.keep("bookTicker") == Keep(max_entries=None, max_age_s=60)
    assert config.keep("account.orderUpdate") == Keep(max_entries=7)


def test_a_reload_keeps_two_of_the_snapshots_that_are_still_written(tmp_path: Path) -> None:
    running = Config()
    new = load(
        "snapshots: {depth_every_updates: 1000}\n"
        "retention: {depth: {max_entries: 5000}, trade: {max_entries: 7}}",
        tmp_path,
    )

    reloaded = running.reloaded(new)

    assert Config.model_validate(reloaded.model_dump()) == reloaded
    assert reloaded.keep("depth") == running.keep("depth")
    assert reloaded.keep("trade") == Keep(max_entries=7)
    assert new.needs_restart(running) == ("retention.depth", "snapshots.depth_every_updates")
    assert new.takes_effect(running) == ("retention.trade",)


def test_a_reload_takes_a_depth_retention_that_fits_the_snapshots_there_are(tmp_path: Path) -> None:
    new = load("retention: {depth: {max_entries: 100001}}", tmp_path)

    assert Config().reloaded(new) == new
    assert new.needs_restart(Config()) == ()
    assert new.takes_effect(Config()) == ("retention.depth",)
    assert new.takes_effect(new) == ()


def test_every_stream_type_has_a_retention() -> None:
    assert Config().retention == {
        kind: Keep(max_entries=entries) for kind, entries in RETENTION_ENTRIES.items()
    }


def test_a_group_with_all_its_lines_commented_out_is_the_default(tmp_path: Path) -> None:
    assert load("redis:\n  # url: x\nretention:\n", tmp_path) == Config()


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert load("# nothing yet\n", tmp_path) == Config()


REFUSALS = {
    "redis:\n  ulr: x": "config.yaml line 2: redis.ulr is not a setting; did you mean redis.url?",
    "consumers:\n  candles: {atempts: 3}": "config.yaml line 2: consumers.candles.atempts is not a "
    "setting; did you mean consumers.candles.attempts?",
    "consumers:\n  candles: {mode: shared}": "config.yaml line 2: consumers.candles.mode is not a "
    "setting",
    "redis: {attempts: 3}": "config.yaml line 1: redis.attempts is not a setting",
    "consumers:\n  candles: {attempts: 0}": "config.yaml line 2: consumers.candles.attempts must "
    "be greater than or equal to 1",
    "consumers:\n  candles: {on_failure: stop}": "config.yaml line 2: "
    "consumers.candles.on_failure must be 'dead_letter' or 'block'",
    "consumers:\n  candles: {streams: []}": "config.yaml line 2: consumers.candles.streams "
    "is empty: name at least one",
    "consumers: [candles]": "config.yaml line 1: consumers must be a group of settings, "
    "each on a line of its own",
    "log: {}\nstrems: []": "config.yaml line 2: strems is not a setting; did you mean streams?",
    "url: x": "config.yaml line 1: url is not a setting; did you mean redis.url?",
    "SECRET_KEY: abc": "config.yaml line 1: SECRET_KEY does not belong here: "
    "set SECRET_KEY in the environment or in .env",
    "redis: localhost": "config.yaml line 1: redis must be a group of settings, "
    "each on a line of its own",
    "redis:\n  url: http://x": "config.yaml line 2: redis.url must be redis://host:port/db, "
    "rediss://… (TLS), unix:///path, redis+sentinel://host:port,host:port/name/db, "
    "redis+cluster://host:port,host:port, or the word embedded; in a password write @ as %40, "
    "/ as %2F and # as %23",
    "log:\n  level: loud": "config.yaml line 2: log.level must be "
    "'debug', 'info', 'warning' or 'error'",
    "publish: {hold_s: soon}": "config.yaml line 1: publish.hold_s must be a number",
    "publish: {hold_s: .nan}": "config.yaml line 1: publish.hold_s must be a finite number",
    "publish: {batch_entries: 0}": "config.yaml line 1: publish.batch_entries must be "
    "greater than or equal to 1",
    "exchange: {signature_window_ms: 60001}": "config.yaml line 1: exchange.signature_window_ms "
    "must be less than or equal to 60000",
    "exchange: {ws_url: 'ftp://x'}": "config.yaml line 1: exchange.ws_url must be a URL such as "
    "wss://host or wss://host:8443, without user, password, spaces, ? and #",
    "exchange: {silence_s: 1.0e-9}": "config.yaml line 1: exchange.silence_s must be greater than "
    "or equal to 1",
    "exchange: {markets_every_s: 0.5}": "config.yaml line 1: exchange.markets_every_s must be "
    "greater than or equal to 1",
    "exchange: {requests_per_s: 1.0e-9}": "config.yaml line 1: exchange.requests_per_s must be "
    "greater than or equal to 0.01",
    "exchange: {reconnect_initial_s: 60}": "config.yaml line 1: exchange reconnect_initial_s must "
    "not exceed reconnect_max_s",
    "snapshots: {depth_levels: 30}": "config.yaml line 1: snapshots.depth_levels must be "
    "5, 10, 20, 50, 100, 500 or 1000",
    "streams: []": "config.yaml line 1: streams is empty: name at least one, such as "
    "trade.SOL_USDC",
    "streams:": "config.yaml line 1: streams must be a list, such as [a, b]",
    "streams:\n  - trade.SOL_USDC\n  - tarde.SOL_USDC": "config.yaml line 3: streams[1] "
    "'tarde.SOL_USDC' is not a stream; did you mean trade.SOL_USDC?",
    "streams: [account.orderUpdates]": "config.yaml line 1: streams[0] 'account.orderUpdates' is "
    "not a stream; did you mean account.orderUpdate?",
    "streams: [{types: [bookticker], markets: [SOL_USDC]}]": "config.yaml line 1: streams[0] "
    "'bookticker.SOL_USDC' is not a stream; did you mean bookTicker.SOL_USDC?",
    "streams: [depth.100ms.SOL_USDC]": "config.yaml line 1: streams[0] 'depth.100ms.SOL_USDC': "
    "write depth.<symbol> or depth.<window>.<symbol>, window one of 200ms, 600ms, 1000ms",
    "streams: [{types: [trade], market: [X], markets: [X]}]": "config.yaml line 1: "
    "streams[0].market is not a setting; did you mean streams[0].markets?",
    "retention: {trades: {max_entries: 1}}": "config.yaml line 1: retention names 'trades', which "
    "is no type of stream; did you mean trade?",
    "retention: {trade: {max_age: 1}}": "config.yaml line 1: retention.trade.max_age is not a "
    "setting; did you mean retention.trade.max_age_s?",
    "retention: {trade: null}": "config.yaml line 1: retention.trade must be a group of settings, "
    "each on a line of its own",
    "retention: {depth: {max_entries: 100000}}": "config.yaml: retention.depth.max_entries "
    "(100000) cannot hold two depth snapshots: make it more than 100000, twice "
    "snapshots.depth_every_updates, or lower that",
    "retention: {depth: {max_age_s: 3600}}": "config.yaml: retention.depth.max_age_s (3600) trims "
    "books away, and snapshots.depth_every_s is 0 (off): give the latter less than 1800, or the "
    "former null",
    "retention: {depth: {max_age_s: 3600}}\nsnapshots: {depth_every_s: 1800}": "config.yaml: "
    "retention.depth.max_age_s (3600) cannot hold two depth snapshots: make it more than 3600, "
    "twice snapshots.depth_every_s, or lower that",
    "snapshots: {depth_every_updates: 0}": "config.yaml: retention.depth.max_entries (200000) "
    "trims books away, and snapshots.depth_every_updates is 0 (off): give the latter less than "
    "100000, or the former null",
    "redis: {key_prefix: 'a b'}": "config.yaml line 1: redis.key_prefix must be without spaces "
    "and pattern characters, such as mine:",
    "log: {}\nlog: {}": "config.yaml line 2: log is written twice",
    "- a": "config.yaml must be settings by name, such as `redis:` and below it `url: …`",
    "redis:\n  url: [": "config.yaml line 2, column 9: this is not valid YAML (expected the node "
    "content, but found '<stream end>'): check indentation, colons and quotes",
    "redis:\n\turl: x": "config.yaml line 2, column 1: this is not valid YAML (found character "
    "'\\t' that cannot start any token): check indentation, colons and quotes",
}


@pytest.mark.parametrize("text", REFUSALS)
def test_a_mistake_is_reported_with_its_place_and_the_right_name(text: str, tmp_path: Path) -> None:
    assert refusal(text, tmp_path) == REFUSALS[text]


SHARES = {
    "{of: 3, index: 0}": ("0", ("0", "1", "2")),
    "{members: [a, b], me: b}": ("b", ("a", "b")),
    "{}": None,
}
NO_SHARES = {
    "{of: 3}": "must be both `of` and `index`, or both `members` and `me`",
    "{of: 2, index: 0, me: a}": "must be both `of` and `index`, or both `members` and `me`",
    "{of: 2, index: 2}": "index must be one of 0 to 1",
    "{members: [a, b], me: c}": "me must be one of a, b",
    "{members: [a, a], me: a}": "members must be different names",
}


@pytest.mark.parametrize("text", SHARES)
def test_a_share_is_by_number_or_by_name(text: str, tmp_path: Path) -> None:
    share = load(f"share: {text}", tmp_path).share.value
    assert (share and (share.me, share.members)) == SHARES[text]


@pytest.mark.parametrize("text", NO_SHARES)
def test_a_share_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    assert refusal(f"share: {text}", tmp_path) == f"config.yaml line 1: share {NO_SHARES[text]}"


def test_another_share_takes_effect_at_once(tmp_path: Path) -> None:
    two, three = (load(f"share: {{of: {n}, index: 0}}", tmp_path) for n in (2, 3))

    assert three.takes_effect(two) == ("share",)
    assert three.needs_restart(two) == ()
    assert two.reloaded(three).share == three.share
    assert set(three.my_stream_names) <= set(two.my_stream_names) < set(Config().stream_names)


VARIABLE_REFUSALS = {
    ("BRIDGE_REDIS_URL", "x"): "BRIDGE_REDIS_URL in the environment is not a setting; "
    "did you mean BRIDGE_REDIS__URL?",
    ("BRIDGE_REDIS__ULR", "x"): "BRIDGE_REDIS__ULR in the environment is not a setting; "
    "did you mean BRIDGE_REDIS__URL?",
    ("BRIDGE_CONSUMERS__CANDLES__MODE", "x"): "BRIDGE_CONSUMERS__CANDLES__MODE in the environment "
    "is not a setting",
    ("BRIDGE_CONSUMERS__CANDLES__LEASES", "1"): "BRIDGE_CONSUMERS__CANDLES__LEASES in the "
    "environment is not a setting; did you mean BRIDGE_CONSUMERS__CANDLES__LEASE_S?",
    ("BRIDGE_ZZZ", "x"): "BRIDGE_ZZZ in the environment is not a setting",
    ("BRIDGE_STREAMS", '["trade.X"'): "BRIDGE_STREAMS in the environment must be a list in JSON, "
    'such as ["trade.SOL_USDC"]',
    ("BRIDGE_STREAMS", '["tarde.X"]'): "BRIDGE_STREAMS in the environment: streams[0] 'tarde.X' "
    "is not a stream; did you mean trade.X?",
    ("BRIDGE_REDIS", "x"): "BRIDGE_REDIS in the environment names a group: write "
    "BRIDGE_REDIS__…, or the whole group as JSON",
    ("BRIDGE_EMBEDDED__PORT", "70000"): "BRIDGE_EMBEDDED__PORT in the environment: embedded.port "
    "must be less than or equal to 65535",
}


@pytest.mark.parametrize(("name", "value"), VARIABLE_REFUSALS)
def test_a_mistaken_variable_is_reported_with_the_right_name(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, None, {name: value})
    assert str(caught.value) == VARIABLE_REFUSALS[(name, value)]


def test_a_misspelt_variable_in_the_env_file_is_reported_with_the_file(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("BRIDGE_LOG_LEVEL=info\n")
    with pytest.raises(ConfigError, match=r"\.env is not a setting; did you mean BRIDGE_LOG__LEV"):
        load_config(None, env_file, {})


def test_foreign_variables_are_ignored() -> None:
    foreign = {"HOME": "/root", "REDIS_URL": "x", "BRIDGET": "jones", "PUBLIC_KEY": "x"}
    assert load_config(None, None, foreign) == Config()


def test_all_mistakes_are_reported_at_once_each_on_its_line(tmp_path: Path) -> None:
    message = refusal("redis: {ulr: x}\nlog: {level: loud}\nstreams: []", tmp_path).splitlines()
    assert [line.split(":")[0] for line in message] == [
        "config.yaml line 3",
        "config.yaml line 1",
        "config.yaml line 2",
    ]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: \x07"])
def test_a_file_that_is_no_text_is_reported(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"not UTF-8 text|not valid YAML"):
        load_config(file, None, {})


def test_a_folder_in_place_of_the_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path, None, {})


@pytest.mark.parametrize("bad", [".env", "utf16"])
def test_an_env_file_that_cannot_be_read_is_reported(bad: str, tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    if bad == "utf16":
        env_file.write_bytes("A=ü".encode("utf-16"))
    else:
        env_file.mkdir()
    with pytest.raises(ConfigError, match=r"\.env (cannot be read|is not UTF-8)"):
        load_config(None, env_file, {})


def test_a_list_that_holds_itself_does_not_hang(tmp_path: Path) -> None:
    assert "line 1, column 10: this is not valid YAML (found an alias inside of what it names)" in (
        refusal("streams: &a [*a]", tmp_path)
    )


NO_VALUES = {
    "instance: 2001-13-45": "a value that is none of its kind, so put it in quotes",
    "instance: 2001-02-28 25:61:61": "a value that is none of its kind, so put it in quotes",
    "instance: !!timestamp x": "a value that is none of its kind, so put it in quotes",
    "instance: !!int ''": "a value that is none of its kind, so put it in quotes",
    "instance: !!float x": "a value that is none of its kind, so put it in quotes",
    "instance: !!bool x": "a value that is none of its kind, so put it in quotes",
    f"publish: {{hold_s: {'9' * 5000}}}": "a number of more than 100 signs",
    f"retention: {{trade: {{max_entries: 0x{'f' * 9999}}}}}": "a number of more than 100 signs",
    f"instance: 1{':59' * 300_000}": "a number of more than 100 signs",
    'instance: "\\UFFFFFFFF"': "an escape or a number that YAML does not have",
    'instance: "\\U00110000"': "an escape or a number that YAML does not have",
    f"%YAML 1.{'9' * 5000}\n--- {{}}": "an escape or a number that YAML does not have",
    'instance: "\\ud800"': "half of a character, such as \\ud800",
    'journal: {dir: "\\ud800"}': "half of a character, such as \\ud800",
    '"\\ud800": 1': "half of a character, such as \\ud800",
    "redis: {1: 2}": "a name that is no text, so put it in quotes",
    "~: 1": "a name that is no text, so put it in quotes",
    "retention: {[a]: 2}": "a name that is no text, so put it in quotes",
}


@pytest.mark.parametrize("text", NO_VALUES, ids=lambda text: text[:40])
def test_a_value_that_yaml_cannot_make_is_reported_with_its_place(
    text: str, tmp_path: Path
) -> None:
    begun_s = time.monotonic()
    message = refusal(text, tmp_path)
    assert message.startswith("config.yaml line 1, column ")
    assert f"this is not valid YAML (found {NO_VALUES[text]})" in message
    assert time.monotonic() - begun_s < 5


@pytest.mark.parametrize("rows", ["a{n}: &a{n} [{below}]", "a{n}: &a{n} {{<<: [{below}]}}"])
def test_aliases_that_unfold_each_other_are_refused_beyond_a_number(
    rows: str, tmp_path: Path
) -> None:
    lines = [rows.format(n=n, below=", ".join([f"*a{n - 1}"] * 9)) for n in range(1, 13)]
    message = refusal("\n".join(["a0: &a0 {k: 1}", *lines]), tmp_path)
    assert "(found more than 200,000 values, each alias being what it names)" in message


def test_aliases_and_merges_of_some_groups_are_taken(tmp_path: Path) -> None:
    text = "consumers:\n  a: &a {attempts: 3}\n  b: {<<: *a, lease_s: 2}\n  c: *a"
    assert load(text, tmp_path).consumers["b"].attempts == 3


def test_of_many_mistakes_the_first_are_reported_and_how_many_more_there_are(
    tmp_path: Path,
) -> None:
    message = refusal("\n".join(f"k{n}: 1" for n in range(5_000)), tmp_path).splitlines()
    assert message[0] == "config.yaml line 1: k0 is not a setting"
    assert message[20:] == ["and 4,980 more mistakes in config.yaml"]


def test_more_variables_than_plausible_are_refused_at_once() -> None:
    environ = {f"BRIDGE_CONSUMERS__G{n}__ATTEMPTS": "3" for n in range(30_000)}
    begun_s = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load_config(None, None, environ)
    assert str(caught.value) == (
        "30,000 variables begin with BRIDGE_, and at most 2,000 are read: write the settings into "
        "the configuration's file"
    )
    assert time.monotonic() - begun_s < 5


def test_of_many_unknown_variables_the_first_are_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, None, {f"BRIDGE_X{n}": "3" for n in range(1_000)})
    assert len(str(caught.value).splitlines()) == 20


def test_a_group_of_more_streams_than_plausible_is_refused(tmp_path: Path) -> None:
    markets = ", ".join(f"A{n}" for n in range(25_001))
    message = refusal(
        f"streams: [{{types: [trade, depth, ticker, bookTicker], markets: [{markets}]}}]", tmp_path
    )
    assert message == (
        "config.yaml line 1: streams[0] means 100,004 streams, and at most 100,000 are taken"
    )


@pytest.mark.parametrize("setting", ["journal.dir", "embedded.data_dir"])
@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_a_path_that_no_file_can_have_is_refused(setting: str, path: str) -> None:
    section, name = setting.split(".")
    with pytest.raises(ConfigError) as caught:
        load_config(None, None, {f"BRIDGE_{section}__{name}": path})
    assert str(caught.value) == (
        f"BRIDGE_{section}__{name} in the environment: {setting} holds a character that no path "
        "can have"
    )


@pytest.mark.parametrize("path", [path for path in leaves(config_shape()) if "options" not in path])
def test_a_number_out_of_range_is_refused_or_not_read_as_a_number(
    path: tuple[str, ...], tmp_path: Path
) -> None:
    where = [part.replace("*", "g") for part in path]
    for number in ("1.0e+308", "9" * 30):
        text = number
        for part in reversed(where):
            text = f"{{{part}: {text}}}"
        assert refusal(text, tmp_path).startswith(f"config.yaml line 1: {'.'.join(where)} ")


def test_a_flag_for_a_number_is_refused(tmp_path: Path) -> None:
    for path in (path for path in leaves(config_shape()) if "options" not in path):
        where = [part.replace("*", "g") for part in path]
        text = reduce(lambda inner, part: f"{{{part}: {inner}}}", reversed(where), "yes")
        value: object = True
        with contextlib.suppress(ConfigError):
            value = load(text, tmp_path)
            for part in where:
                value = value[part] if isinstance(value, dict) else getattr(value, part)
        assert value is True, path


def test_a_file_with_a_document_mark_and_comments_only_is_the_default(tmp_path: Path) -> None:
    assert load("---\n# instance: a\n", tmp_path) == Config()


@pytest.mark.parametrize(
    ("ws_url", "rest_url", "real"),
    [
        ("wss://ws.backpack.exchange", "https://api.backpack.exchange", True),
        ("ws://127.0.0.1:8080", "https://api.backpack.exchange", True),
        ("wss://WS.Backpack.Exchange/", "http://localhost", True),
        ("ws://127.0.0.1:8080", "http://127.0.0.1:8080", False),
        ("wss://notbackpack.exchange", "http://backpack.exchange.evil", False),
    ],
)
def test_the_real_exchange_is_known_by_its_host(ws_url: str, rest_url: str, real: bool) -> None:
    given_urls = {"ws_url": ws_url, "rest_url": rest_url}
    assert Config.model_validate({"exchange": given_urls}).exchange.is_real is real


@pytest.mark.parametrize("scheme", ["ws", "WS"])
def test_the_real_exchange_in_the_clear_is_refused(scheme: str) -> None:
    with pytest.raises(ValidationError, match="must be wss://… for the real exchange"):
        Exchange(ws_url=f"{scheme}://WS.backpack.exchange")
    with pytest.raises(ValidationError, match="must be https://… for the real exchange"):
        Exchange(rest_url="http://api.backpack.exchange")


@pytest.mark.parametrize(
    "rest",
    [
        "h:99999",
        "h:abc",
        "h:0",
        "h:-1",
        "a b",
        "h?x",
        "h#x",
        "h/\x07",
        "[::1",
        "u:p@h",
        "",
        "a..b",
        "[v1.a]",
        "999.1.1.1",
        "ü.example",
        "h/" + "x" * 2048,
        "x" * 64,
    ],
)
def test_an_address_that_cannot_be_called_is_refused(rest: str) -> None:
    for setting, scheme in (("ws_url", "wss"), ("rest_url", "https")):
        with pytest.raises(ValidationError, match=f"such as {scheme}://host or"):
            Exchange.model_validate({setting: f"{scheme}://{rest}"})


@pytest.mark.parametrize("rest", ["h", "h:1", "h:65535", "[::1]:80", "h/path/", "127.0.0.1:8765"])
def test_an_address_of_any_other_form_is_taken(rest: str) -> None:
    assert Exchange(ws_url=f"ws://{rest}").ws_url == f"ws://{rest}".rstrip("/")


@pytest.mark.parametrize("prefix", ["{", "}", "{}", "a{b}c{d}:", "a}b{:"])
def test_key_prefix_with_braces_that_are_no_tag_is_refused(prefix: str, tmp_path: Path) -> None:
    message = refusal(f"redis:\n  key_prefix: '{prefix}'\n", tmp_path)
    assert message.startswith("config.yaml line 2: redis.key_prefix m")


@pytest.mark.parametrize(
    ("url", "given", "effective"),
    [
        ("redis://h/0", "", ""),
        ("redis://h/0", "{mine}:", "{mine}:"),
        ("redis+sentinel://h/mymaster/0", "mine:", "mine:"),
        ("redis+cluster://h", "", "{bridge}:"),
        ("rediss+cluster://h", "simulated:", "{simulated}:"),
        ("redis+cluster://h", "a{b}c", "a{b}c"),
    ],
)
def test_key_prefix_of_a_cluster_has_one_hash_tag(url: str, given: str, effective: str) -> None:
    assert Redis(url=url, key_prefix=given).key_prefix == effective


def test_several_shards_are_of_a_cluster_only(tmp_path: Path) -> None:
    assert Redis(url="redis+cluster://h", shards=4).keys == KeySpace("{bridge}:", 4)
    for url in ("redis://h/0", "redis+sentinel://h/mymaster/0", "embedded"):
        message = refusal(f"redis:\n  url: {url}\n  shards: 2\n", tmp_path)
        assert message == (
            "config.yaml line 3: redis.shards may be more than 1 with a redis+cluster:// URL only"
        )
    assert "redis.shards" in refusal("redis: {url: 'redis+cluster://h', shards: 65}", tmp_path)


def test_replicas_are_read_from_where_they_can_be_found(tmp_path: Path) -> None:
    for url in ("redis+sentinel://h/mymaster/0", "redis+cluster://h"):
        assert Redis(url=url, read_from="replica").read_from == "replica"
        assert Redis(url=url, read_from="replica").at({"url": "redis://h"}).read_from == "primary"
    assert refusal("redis:\n  read_from: replica\n", tmp_path) == (
        "config.yaml line 2: redis.read_from may be replica with a redis+sentinel:// or "
        "redis+cluster:// URL only"
    )


def test_the_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().log.level = "debug"  # type: ignore[misc]


def test_a_wrong_url_with_a_password_is_refused_without_showing_it(tmp_path: Path) -> None:
    message = refusal("redis:\n  url: redis://:hun/ter2@h:1/0\n", tmp_path)
    assert message.startswith("config.yaml line 2: redis.url must be")
    assert "hun" not in message
    assert "ter2" not in message


@pytest.mark.parametrize("host", ["a..b", "a%2e%2eb", ".", "x" * 64])
def test_a_redis_whose_name_cannot_be_resolved_is_refused(host: str, tmp_path: Path) -> None:
    message = refusal(f"redis:\n  url: redis://{host}:6379/0\n", tmp_path)
    assert message.startswith("config.yaml line 2: redis.url must be redis://host:port/db")


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("unix:///a%00b", "must be redis://host:port/db"),
        ("redis://a%00b:6379/0", "must be redis://host:port/db"),
        ("redis://u:pass\udcff@h:6379/0", "has a character that is not printed: write it as"),
        ("unix:///a\0b", "has a character that is not printed: write it as its code"),
    ],
)
def test_a_redis_url_with_a_character_that_cannot_be_sent_is_refused(url: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, None, {"BRIDGE_REDIS__URL": url})
    assert str(caught.value).startswith(f"BRIDGE_REDIS__URL in the environment: redis.url {wrong}")


def test_masked_keeps_everything_but_the_password() -> None:
    config = Config(redis=Redis(url="redis://bridge:hunter2@h:6379/0"), instance="x")
    masked = config.masked()
    assert masked["redis"]["url"] == "redis://bridge:***@h:6379/0"
    assert masked["exchange"]["ws_url"] == "wss://ws.backpack.exchange"


@given(st.text(alphabet=st.characters(categories=["L", "N"])))
def test_no_password_shows_in_repr_or_masked(password: str) -> None:
    def shown(of: str) -> str:
        config = Config(redis=Redis(url=f"redis://u:{of}@h:6379/0"), instance="x")
        return repr(config) + str(config.masked())

    assert shown(password) == shown("another")


def test_consumer_groups_have_settings_by_name_in_the_file_and_in_variables(tmp_path: Path) -> None:
    text = """
consumers:
  my-group: { options: { top: 5, shown: true }, streams: ["trade.*"], rate_limit: 2 }
  candles: { attempts: 3 }
"""
    config = load(text, tmp_path, BRIDGE_CONSUMERS__CANDLES__CONCURRENCY="4")
    mine = config.consumers["my-group"]
    assert (mine.options, mine.streams) == ({"top": "5", "shown": "true"}, ("trade.*",))
    assert mine.settings() == {"rate_limit": 2}
    assert config.consumers["candles"].settings() == {"attempts": 3, "concurrency": 4}
    assert config.needs_restart(Config()) == ()
