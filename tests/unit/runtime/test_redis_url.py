"""Redis URLs of every kind: their parts, and refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.runtime.redis_url import (
    Node,
    RedisUrl,
    Topology,
    has_replicas,
    parse_redis_url,
    replica_url,
    shard_urls,
    slot_of,
    tag_of,
    tagged,
    with_tag,
)


def test_url_of_sentinels_has_hosts_name_of_the_set_and_database() -> None:
    url = "rediss+sentinel://user:pw@s1:26379,s2,[::1]:26381/mymaster/2?ssl_ca_certs=/ca.pem"
    assert parse_redis_url(url) == RedisUrl(
        Topology.SENTINEL,
        "rediss://user:pw@s1:26379/2?ssl_ca_certs=%2Fca.pem",
        (Node("s1", 26379), Node("s2", 26379), Node("::1", 26381)),
        "rediss://s1:26379/0?ssl_ca_certs=%2Fca.pem",
        db=2,
        service="mymaster",
    )


def test_url_of_sentinels_has_their_login_and_whether_tls_is_for_them_alone() -> None:
    url = "rediss+sentinel://s1/set?sentinel_username=u&sentinel_password=p%26w"
    parsed = parse_redis_url(url)
    assert (parsed.plain, parsed.query_url) == (
        "rediss://s1:26379/0",
        "rediss://u:p%26w@s1:26379/0",
    )
    assert parse_redis_url(url + "&sentinel_tls=false").query_url == "redis://u:p%26w@s1:26379/0"
    theirs = parse_redis_url("redis+sentinel://u:p@s1/set?sentinel_tls=true&ssl_ca_certs=ca.pem")
    assert theirs.plain == "redis://u:p@s1:26379/0"
    assert theirs.query_url == "rediss://s1:26379/0?ssl_ca_certs=ca.pem"


def test_url_of_a_cluster_has_nodes_and_the_hash_tag() -> None:
    url = with_tag("rediss+cluster://u:p@n1:7000,n2/0?ssl_check_hostname=false", "a{b}c")
    parsed = parse_redis_url(url)
    assert parsed.nodes == (Node("n1", 7000), Node("n2", 6379))
    assert parsed.plain == "rediss://u:p@n1:7000/0?ssl_check_hostname=false"
    assert (parsed.tag, parsed.name) == ("b", "cluster {b}")


def test_url_of_several_shards_is_one_for_each() -> None:
    url = with_tag("redis+cluster://u:p@n1,n2/0?a=b", "{a}:", 2)
    assert parse_redis_url(url).name == "cluster {a} in 2 shards"
    parsed = [parse_redis_url(one) for one in shard_urls(url)]
    assert [(one.tag, one.shards) for one in parsed] == [("a.0", 1), ("a.1", 1)]
    assert {one.plain for one in parsed} == {"redis://u:p@n1:6379/0?a=b"}
    alone = with_tag("redis+cluster://n1/0", "{a}:", 1)
    assert shard_urls(alone) == [alone]


@pytest.mark.parametrize("url", ["redis://u:p@h:1/3?a=b", "rediss://h", "unix:///run/r.sock?db=1"])
def test_url_of_one_server_stays_unchanged(url: str) -> None:
    assert parse_redis_url(url).plain == url == with_tag(url, "{tag}")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://h", "must be redis://host:port/db"),
        ("redis://h1,h2/0", "names several servers"),
        ("redis://h:0/0", "must be"),
        ("redis://h/zero", "must be"),
        ("redis://[::1/0", "must be"),
        ("redis+sentinel://s1,s2/", "must name the set that the Sentinels watch"),
        ("redis+sentinel://s1/set/0/1", "must name the set that the Sentinels watch"),
        ("redis+sentinel://s1,/set", "must be"),
        ("redis+sentinel://s1/set?sentinel_tls=maybe", "sentinel_tls that is neither"),
        ("redis+cluster://n1/1", "a Cluster has database 0 only"),
        ("redis+cluster://n1:x", "must be"),
        ("redis+cluster://n1?ssl_ca_certs=/ca.pem", "no TLS: write rediss.cluster"),
    ],
)
def test_invalid_url_is_refused_with_a_reason(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_redis_url(url)


@pytest.mark.parametrize(
    "url", ["redis+sentinel://u:secret@h/set?sentinel_password=hidden", "redis://u:secret@h/0"]
)
def test_url_shown_hides_every_password(url: str) -> None:
    shown = repr(parse_redis_url(url))
    assert "secret" not in shown
    assert "hidden" not in shown


@given(st.text())
def test_url_of_any_text_is_split_or_refused_by_value_error(text: str) -> None:
    for scheme in ("", "redis://", "redis+sentinel://", "redis+cluster://"):
        try:
            parse_redis_url(scheme + text)
        except ValueError as error:
            assert str(error).startswith(("must", "has", "names"))  # noqa: PT017 - or nothing


def test_tag_is_the_text_in_the_first_braces() -> None:
    assert [tag_of(key) for key in ("a", "{a}b", "x{a}{b}", "{}{b}", "{a")] == [
        "",
        "a",
        "a",
        "",
        "",
    ]
    assert [tagged(prefix) for prefix in ("", "a:", "{a}b")] == ["{bridge}:", "{a}:", "{a}b"]


def test_slot_is_that_of_redis() -> None:
    # as CLUSTER KEYSLOT replies
    assert [slot_of(tag) for tag in ("123456789", "bridge", "depth.SOL_USDC")] == [
        12739, 3821, 13682,
    ]  # fmt: skip


def test_url_of_a_replica_is_of_the_same_set() -> None:
    for url in ("redis+sentinel://s1/set/3", with_tag("redis+cluster://n1", "{a}:", 2)):
        assert has_replicas(url)
        for one in shard_urls(replica_url(url)):
            parsed = parse_redis_url(one)
            assert parsed.is_of_replica
            assert "reads" not in parsed.plain
    assert not has_replicas("redis://h/0")
    assert not parse_redis_url("redis+sentinel://s1/set").is_of_replica
