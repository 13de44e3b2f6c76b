"""Error messages for commands that Redis refuses."""

import pytest
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from bridge.errors import ConfigError
from consumers.kit.redis.scripts import CommandRefused, script
from consumers.kit.redis_health import RedisHealth
from consumers.kit.stop import Stop

IN_A_SCRIPT = [
    # as Redis 6.2 and 7.0 report a forbidden command; then an unknown command
    "The user executing the script can't run this command or subcommand",
    "Unknown Redis command called from script script: 5dbf, on @user_script:164.",
]


@pytest.mark.parametrize("refusal", IN_A_SCRIPT)
def test_a_command_refused_in_a_script_is_named_with_those_that_the_script_needs(
    refusal: str,
) -> None:
    named = script("release")._named(ResponseError(refusal))

    assert isinstance(named, CommandRefused)
    assert str(named) == f"{refusal} (a script of the kit needs del, hdel, hmget)"


def test_a_command_that_redis_names_itself_is_not_named_again() -> None:
    output = "ACL failure in script: User x has no permissions to run the 'xack' command"

    assert str(script("settle")._named(NoPermissionError(output))) == output


@pytest.mark.parametrize(
    "refusal", ["WRONGTYPE Operation against a key", "OOM command not allowed"]
)
def test_errors_of_one_key_or_of_the_whole_server_are_not_changed(refusal: str) -> None:
    error = ResponseError(refusal)

    assert script("settle")._named(error) is error


@pytest.mark.parametrize(
    "error",
    [
        NoPermissionError("this user has no permissions to run the 'hkeys' command"),
        ResponseError("unknown command 'HKEYS', with args beginning with: 'bridge:streams'"),
        *map(ResponseError, IN_A_SCRIPT),
    ],
)
async def test_health_ends_a_worker_that_is_refused_a_command(error: RedisError) -> None:
    with pytest.raises(ConfigError, match=r"Redis at redis://h refuses us: "):
        await RedisHealth("redis://h").down("entries", error, Stop())


async def test_health_waits_for_a_redis_that_takes_no_writes_now() -> None:
    health, stop = RedisHealth("redis://h"), Stop()
    stop.set()
    await health.down("entries", ResponseError("OOM command not allowed"), stop)

    assert health.trouble == "OOM command not allowed"
