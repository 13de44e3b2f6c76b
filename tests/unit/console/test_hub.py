"""Limits on the number of the console's clients and on the length of their queues."""

import pytest

from bridge.console.hub import (
    MOST_CLIENTS,
    MOST_TOPICS,
    MOST_WAITING,
    Client,
    Hub,
    Message,
    TooMany,
)


async def received(client: Client) -> list[str]:
    return [message.data async for message in client.messages()]


async def test_each_client_of_a_topic_gets_its_messages_and_no_others() -> None:
    hub = Hub()
    now, gaps = hub.join("now"), hub.join("gaps")
    hub.publish("now", Message("more", "1"))
    hub.publish_all(Message("head", "2"))
    seen = [await anext(now.messages()) for _ in range(2)]
    assert [message.data for message in seen] == ["1", "2"]
    assert (await anext(gaps.messages())).data == "2"


async def test_a_client_that_does_not_read_is_dropped_and_slows_no_other() -> None:
    hub = Hub()
    slow, quick = hub.join("now"), hub.join("now")
    for number in range(MOST_WAITING + 1):
        hub.publish("now", Message("more", str(number)))
        assert (await anext(quick.messages())).data == str(number)
    assert slow.is_dropped
    assert await received(slow) == []  # dropping a client clears its queue
    assert len(hub) == 1


async def test_numbers_of_clients_and_topics_are_limited() -> None:
    hub = Hub()
    clients = [hub.join("now") for _ in range(MOST_CLIENTS)]
    with pytest.raises(TooMany, match="open already"):
        hub.join("now")
    for client in clients:
        hub.leave(client)
    for number in range(MOST_TOPICS):
        hub.join(f"market:{number}")
    with pytest.raises(TooMany, match="markets"):
        hub.join("market:one-more")


async def test_a_topic_is_watched_as_long_as_it_has_clients() -> None:
    hub = Hub()
    one, other = hub.join("market:SOL_USDC"), hub.join("market:SOL_USDC")
    hub.leave(one)
    assert hub.topics == {"market:SOL_USDC"}
    hub.leave(other)
    hub.leave(other)
    assert hub.topics == frozenset()


async def test_closing_ends_every_client() -> None:
    hub = Hub()
    client = hub.join("now")
    hub.close()
    assert await received(client) == []
    with pytest.raises(TooMany):
        hub.join("now")


def test_a_message_is_one_event_of_the_stream() -> None:
    assert Message("more", '{"a":1}').encoded() == b'event: more\ndata: {"a":1}\n\n'
