"""A stream that is not received is reported, and makes the bridge unhealthy."""

import json
from collections.abc import AsyncIterator, Iterable

import pytest

from bridge.contract.streams import parse_stream
from bridge.feed.plan import SubscriptionPlan
from bridge.runtime.patterns import parse_pattern
from tests.support.eventually import eventually_async
from tests.support.receiving_feed import receiving_feed, refuses
from tests.support.rest_answers import http
from tests.support.scripted_exchange import Client, ScriptedExchange, scripted_exchange

UNKNOWN = '{"id":null,"error":{"code":4006,"message":"Invalid stream"}}'
PERP = {"symbol": "SOL_USDC_PERP", "marketType": "PERP", "orderBookState": "Open"}
ALL, ONE = "liquidation", "liquidation.SOL_USDC_PERP"


@pytest.fixture
async def exchange() -> AsyncIterator[ScriptedExchange]:
    async with scripted_exchange() as scripted:
        yield scripted


def lists(request: str) -> bytes:
    """REST replies with a list of one market."""
    return http("200 OK", json.dumps([PERP]).encode())


async def test_patterns_are_reported_until_a_list_of_markets_is_read(
    exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.feed.feed.MARKETS_BACKOFF_S", (0.01, 0.05))
    answers = [refuses]
    plan = SubscriptionPlan((), (parse_pattern("trade.*"),))
    async with receiving_feed(exchange, plan, lambda line: answers[-1](line)) as subject:
        await eventually_async(
            lambda: "403" in subject.feed.troubles().get("trade.*", ""), "the reason is reported"
        )
        assert subject.feed.streams == {}

        answers.append(lists)
        await eventually_async(lambda: subject.feed.streams, "the list is read")
        assert subject.feed.troubles() == {}


async def test_pattern_uses_the_earlier_bridges_streams_until_a_list_is_read(
    exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.feed.feed.MARKETS_BACKOFF_S", (0.01, 0.05))
    answers = [refuses]
    plan = SubscriptionPlan((), (parse_pattern("trade.*_PERP"),))
    known = [f"trade.{market}" for market in ("SOL_USDC_PERP", "GONE_USDC_PERP", "SOL_USDC")]
    async with receiving_feed(exchange, plan, lambda line: answers[-1](line)) as subject:
        subject.feed.recall({name: parse_stream(name) for name in known})
        await eventually_async(
            lambda: exchange.clients and exchange.clients[0].subscribed == sorted(known[:2]),
            "the known streams are subscribed to",
        )
        await eventually_async(
            lambda: subject.feed.troubles(), "a possible further refusal is reported"
        )

        answers.append(lists)
        await eventually_async(
            lambda: exchange.clients[0].subscribed == known[:1], "the subscriptions follow the list"
        )
        assert subject.feed.troubles() == {}


@pytest.mark.parametrize("name", [ALL, ONE])
async def test_liquidations_refused_in_both_forms_are_reported(
    exchange: ScriptedExchange, name: str
) -> None:
    def refuse(client: Client, names: Iterable[str]) -> None:
        client.send(UNKNOWN)

    exchange.greet = refuse
    async with receiving_feed(exchange, SubscriptionPlan((name,)), lists) as subject:
        await eventually_async(
            lambda: set(subject.feed.troubles()) == {ALL, ONE}, "both forms are reported"
        )


@pytest.mark.parametrize("name", [ALL, ONE])
async def test_liquidations_received_in_the_other_form_are_healthy(
    exchange: ScriptedExchange, name: str
) -> None:
    def refuse(client: Client, names: Iterable[str]) -> None:
        if name in names:
            client.send(UNKNOWN)

    exchange.greet = refuse
    async with receiving_feed(exchange, SubscriptionPlan((name,)), lists) as subject:
        await eventually_async(
            lambda: exchange.clients and set(exchange.clients[0].subscribed) == {ALL, ONE},
            "the other form is requested",
        )
        await eventually_async(
            lambda: name in subject.feed.status()[0]["refused"], "the single stream is refused"
        )
        assert subject.feed.troubles() == {}


async def test_liquidations_are_reported_while_the_other_form_is_unknown(
    exchange: ScriptedExchange,
) -> None:
    def refuse(client: Client, names: Iterable[str]) -> None:
        client.send(UNKNOWN)

    exchange.greet = refuse
    async with receiving_feed(exchange, SubscriptionPlan((ALL,)), refuses) as subject:
        await eventually_async(
            lambda: set(subject.feed.troubles()) == {ALL}, "the refused stream is reported"
        )
