"""The findings of `check`: markets, a server's INFO, memory, clock, and the exit code."""

from typing import Literal

import pytest

from bridge.contract.streams import parse_stream
from bridge.runtime.checks.clock import judge_clock
from bridge.runtime.checks.finding import Finding, Level, exit_code
from bridge.runtime.checks.markets import judge_markets, judge_patterns
from bridge.runtime.checks.memory import BYTES_PER_ENTRY, Need, memory_needs, total_bytes
from bridge.runtime.checks.redis_server import (
    describe_server,
    judge_coverage,
    judge_durability,
    judge_groups,
    judge_info,
    judge_kind,
    judge_tls,
)
from bridge.runtime.config import RETENTION_ENTRIES, Config, Durability
from bridge.runtime.markets import Market
from bridge.runtime.patterns import parse_pattern

MARKETS = {
    "SOL_USDC": Market("SOL_USDC", "SPOT", "Open"),
    "SOL_USDC_PERP": Market("SOL_USDC_PERP", "PERP", "Open"),
    "OLD_USDC": Market("OLD_USDC", "SPOT", "Closed"),
}
GOOD_INFO = {
    "redis_version": "7.2.4",
    "valkey_version": "9.1.2",
    "role": "master",
    "aof_enabled": 1,
    "maxmemory_policy": "noeviction",
    "maxmemory": 0,
}


def judged(*names: str) -> list[tuple[str, str, str]]:
    findings = judge_markets([parse_stream(name) for name in names], MARKETS)
    return [(finding.level.value, finding.found, finding.advice) for finding in findings]


def test_listed_markets_are_counted_each_once() -> None:
    assert judged("trade.SOL_USDC", "depth.200ms.SOL_USDC", "kline.1m.SOL_USDC_PERP") == [
        ("ok", "2 of 2 are listed", "")
    ]


def test_an_unknown_market_is_wrong_and_the_nearest_are_named() -> None:
    assert judged("trade.SOL_USCD") == [
        (
            "wrong",
            "SOL_USCD is not listed by the exchange",
            "did you mean SOL_USDC or OLD_USDC or SOL_USDC_PERP?",
        )
    ]


def test_private_streams_of_one_market_are_checked_too() -> None:
    assert judged("account.orderUpdate.NOPE", "account.orderUpdate")[0][0] == "wrong"


@pytest.mark.parametrize(
    "name",
    [
        "stockPrice.NVDA",
        "stockIndicativeQuote.BRK.B",
        "externalTicker.MSFT.US_USDC",
        "trade.AAPL.US_USDC_RFQ",
        "account.rfqUpdate.AAPL.US_USDC_RFQ",
    ],
)
def test_names_outside_the_list_are_never_called_wrong(name: str) -> None:
    assert judged(name) == [("not checked", f"not in the exchange's list: {name}", "")]


def test_streams_without_a_market_need_no_list() -> None:
    assert judged("liquidation", "account.balanceUpdate") == []


def test_closed_markets_and_streams_that_spot_lacks_are_warned_of() -> None:
    assert judged("trade.OLD_USDC", "markPrice.SOL_USDC") == [
        ("ok", "2 of 2 are listed", ""),
        ("warning", "OLD_USDC is closed for trading", "expect its streams to be silent"),
        (
            "warning",
            "SOL_USDC is a spot market, without markPrice",
            "use SOL_USDC_PERP for these",
        ),
    ]


def levels(**changed: object) -> dict[str, str]:
    findings = judge_info(GOOD_INFO | changed, needed=100 << 20)
    return {finding.subject: finding.level.value for finding in findings}


def test_a_good_server_is_all_ok() -> None:
    assert levels() == {"version": "ok", "persistence": "ok", "eviction": "ok"}


@pytest.mark.parametrize(
    ("changed", "subject", "level"),
    [
        ({"redis_version": "6.0.16", "valkey_version": None}, "version", "problem"),
        ({"redis_version": "6.2.0"}, "version", "ok"),
        ({"redis_version": ""}, "version", "not checked"),
        ({"aof_enabled": 0}, "persistence", "warning"),
        ({"maxmemory_policy": "allkeys-lru"}, "eviction", "problem"),
        ({"maxmemory_policy": "volatile-ttl"}, "eviction", "ok"),
        ({"maxmemory_policy": ""}, "eviction", "not checked"),
        ({"maxmemory": 1 << 20}, "memory", "warning"),
    ],
)
def test_each_dangerous_setting_has_its_finding(
    changed: dict[str, object], subject: str, level: str
) -> None:
    assert levels(**changed)[subject] == level


@pytest.mark.parametrize(
    ("level", "changed", "found"),
    [
        ("memory", {}, "published means: in the memory of the primary"),
        ("replica", {"connected_slaves": 2}, "published means: on replicas too"),
        (
            "replica",
            {"connected_slaves": 1},
            "1 of 2 replicas are there: nothing would be published",
        ),
        ("fsynced", {"redis_version": "7.2.4"}, "published means: on the disk of the primary"),
        ("fsynced", {"redis_version": "7.0.15"}, "this server has no WAITAOF"),
        (
            "fsynced",
            {"redis_version": "7.2.4", "aof_enabled": 0},
            "fsynced needs the append-only file, which is off",
        ),
    ],
)
def test_durability_is_judged_by_the_abilities_of_the_server(
    level: Literal["memory", "replica", "fsynced"], changed: dict[str, object], found: str
) -> None:
    [finding] = judge_durability(GOOD_INFO | changed, Durability(level=level, replicas=2))
    assert finding.found == found
    assert finding.level.value == "ok" or finding.advice


@pytest.mark.parametrize(
    ("url", "info", "role", "found", "advice"),
    [
        (
            "redis://h",
            {"redis_mode": "sentinel"},
            ["sentinel", ["mymaster"]],
            "this is a Sentinel, which keeps no data",
            "redis.url: redis+sentinel://10.0.0.1:26379/mymaster/0",
        ),
        (
            "redis://h",
            {"redis_mode": "cluster"},
            ["master", 1, []],
            "this is a node of a Cluster: it has some of the keys only",
            "redis.url: redis+cluster://10.0.0.1:26379",
        ),
        (
            "redis://h",
            {"role": "slave", "master_host": "10.0.0.2", "master_port": 6379},
            ["slave", "10.0.0.2", 6379, "connected", 1],
            "this is a replica, which takes no writes",
            "use its primary, 10.0.0.2:6379",
        ),
        (
            "redis://h",
            {},  # INFO is refused
            ["slave", "10.0.0.2", 6379, "connected", 1],
            "this is a replica, which takes no writes",
            "use its primary, 10.0.0.2:6379",
        ),
        (
            "redis://h",
            {"redis_mode": "standalone", "role": "active-replica"},
            None,
            "active-active replication: two servers may give the same ID to two entries",
            "write to one region only, to a database that is not active-active",
        ),
        (
            "redis://h",
            {},  # INFO is refused
            ["active-replica", "10.0.0.2", 6379, "connected", 1],
            "active-active replication: two servers may give the same ID to two entries",
            "write to one region only, to a database that is not active-active",
        ),
    ],
)
def test_kind_of_server_that_keeps_no_streams_is_reported_with_the_right_url(
    url: str, info: dict[str, object], role: object, found: str, advice: str
) -> None:
    finding = judge_kind(url, "10.0.0.1:26379", info, role)
    assert finding is not None
    assert (finding.level.value, finding.found, finding.advice) == ("problem", found, advice)


def test_a_cluster_whose_nodes_all_stop_with_one_is_warned_of() -> None:
    [finding] = judge_coverage("yes")
    assert (finding.level.value, finding.subject) == ("warning", "shards")
    assert judge_coverage("no") == judge_coverage("") == []


@pytest.mark.parametrize(
    ("url", "info", "words"),
    [
        ("redis://h", {"redis_mode": "standalone"}, "one server"),
        ("redis://h", {"connected_slaves": 2}, "one server, with 2 replicas"),
        ("redis+sentinel://s/main", {}, "n:1 is the primary of main, by the Sentinels"),
        (
            "redis+cluster://n?hash_tag=a",
            {"redis_mode": "cluster"},
            "n:1 has the slot of {a} in this Cluster",
        ),
    ],
)
def test_kind_of_server_is_reported(url: str, info: dict[str, object], words: str) -> None:
    assert judge_kind(url, "n:1", info, ["master", 1, []]) is None
    assert describe_server(url, "n:1", info) == words


@pytest.mark.parametrize(
    ("refused", "level", "expected"),
    [
        ({}, "ok", ""),
        (
            {"XREADGROUP": "ClusterCrossSlotError: Keys in request don't hash to the same slot"},
            "problem",
            "give redis.key_prefix a hash tag, such as {bridge}:",
        ),
        (
            {"XGROUP": "NoPermissionError: no", "XACK": "NoPermissionError: no"},
            "not checked",
            "a bridge alone does not need it",
        ),
        (
            {"XGROUP": "ResponseError: unknown command 'XGROUP'"},
            "problem",
            "consumers of the kit cannot work",
        ),
    ],
)
def test_groups_refused_state_what_consumers_lack(
    refused: dict[str, str], level: str, expected: str
) -> None:
    finding = judge_groups(refused)
    assert (finding.level.value, finding.advice) == (level, expected)


def test_each_finding_that_is_not_ok_has_a_remedy() -> None:
    worst: dict[str, object] = {
        "redis_version": "5.0.0",
        "aof_enabled": 0,
        "maxmemory_policy": "allkeys-lru",
        "maxmemory": 1,
    }
    findings = judge_info(worst, needed=2)
    assert len(findings) == 4
    assert all(finding.advice for finding in findings)


def test_memory_is_entries_times_bytes_plus_a_floor_for_each_stream() -> None:
    config = Config.model_validate({"streams": ["trade.SOL_USDC", "trade.BTC_USDC"]})
    needs = memory_needs(config, config.stream_names)
    assert needs[0] == Need("trade", 2, 200_000, None, 2 * (200_000 * 130 + 5 * 1024))
    assert [need.kind for need in needs] == ["trade", "gaps", "quarantine"]
    assert total_bytes(needs) == sum(need.total_bytes or 0 for need in needs)


def test_depth_adds_the_snapshots_inside_it() -> None:
    config = Config.model_validate({"streams": ["depth.SOL_USDC"]})
    snapshots = 5 * 1000 * 2 * 26
    assert (
        memory_needs(config, config.stream_names)[0].total_bytes
        == 200_000 * 160 + 5 * 1024 + snapshots
    )


def test_without_a_limit_there_is_no_estimate() -> None:
    config = Config.model_validate(
        {"streams": ["trade.SOL_USDC"], "retention": {"trade": {"max_entries": None}}}
    )
    assert memory_needs(config, config.stream_names)[0] == Need("trade", 1, None, None, None)


def test_every_type_that_is_kept_has_a_size() -> None:
    assert BYTES_PER_ENTRY.keys() == RETENTION_ENTRIES.keys()


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([], 0),
        ([Level.OK, Level.WARNING, Level.NOT_CHECKED], 0),
        ([Level.OK, Level.PROBLEM], 1),
        ([Level.WRONG, Level.PROBLEM], 2),
    ],
)
def test_the_worst_finding_decides_the_exit_code(found: list[Level], code: int) -> None:
    assert exit_code(Finding(level, "x", "y") for level in found) == code


def test_a_pattern_is_counted_and_one_that_fits_nothing_is_warned_of() -> None:
    patterns = [parse_pattern("trade.*"), parse_pattern("markPrice.*"), parse_pattern("depth.X*")]

    findings = judge_patterns(patterns, MARKETS)

    assert [(finding.level.value, finding.found) for finding in findings] == [
        ("ok", "trade.* fits 2 markets now"),
        ("ok", "markPrice.* fits 1 markets now"),
        ("warning", "depth.X* fits 0 markets now"),
    ]


def test_a_skewed_clock_is_warned_of() -> None:
    assert judge_clock(-999).level is Level.OK
    assert judge_clock(3_210).found == "this machine's clock is 3.2 s behind the exchange's"
    assert judge_clock(-3_210).found == "this machine's clock is 3.2 s ahead of the exchange's"


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("rediss://h:6379/0", False),
        ("rediss://h/0?ssl_ca_certs=/ca.pem", False),
        ("rediss://h/0?ssl_cert_reqs=required&ssl_check_hostname=true", False),
        ("rediss://h/0?ssl_cert_reqs=none", True),
        ("rediss://h/0?ssl_cert_reqs=Optional", True),
        ("rediss://h/0?ssl_check_hostname=false", True),
    ],
)
def test_encryption_without_verification_is_warned_of(url: str, warned: bool) -> None:
    findings = judge_tls(url)
    assert [finding.level for finding in findings] == [Level.WARNING] * warned
