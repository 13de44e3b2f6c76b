"""The meaning of error replies, as servers spell them."""

import inspect
import re

import pytest
from redis import exceptions

from bridge.redis.append import SCRIPT
from bridge.runtime.checks import redis_server
from bridge.runtime.refusals import (
    Refusal,
    is_elsewhere,
    is_server_wide,
    meaning,
    refusal_text,
)


@pytest.mark.parametrize(
    "error",
    [
        "OOM command not allowed when used memory > 'maxmemory'. script: on @user_script:45.",
        "ERR Error running script (call to f_1a): @user_script:45: @user_script: 45: -OOM command "
        "not allowed when used memory > 'maxmemory'.",
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
        "MISCONF Redis is configured to save RDB snapshots",
        "NOREPLICAS Not enough good replicas to write.",
        "BUSY Redis is busy running a script.",
        "NOAUTH Authentication required.",
        "ERR max number of clients reached",
        "upstream failure",
        "no upstream host",
        "ERR max daily request limit exceeded. Limit: 10000, Usage: 10000.",
        "ERR max requests limit exceeded",
    ],
)
def test_meaning_server_cannot_write_is_unavailable(error: str) -> None:
    assert meaning(error) is Refusal.UNAVAILABLE
    assert is_server_wide(error)


@pytest.mark.parametrize(
    "error",
    [
        "NOPERM this user has no permissions to run the 'evalsha' command or its subcommand",
        "NOPERM User keeper has no permissions to run the 'evalsha' command",
        "NOPERM ACL failure in script: User b has no permissions to run the 'xadd' command script: "
        "on @user_script:45.",
        "ERR The user executing the script can't run this command or subcommand script: 9a",
        "ERR unknown command 'EVALSHA', with args beginning with: '1'",
        "ERR Unknown Redis command called from script script: 9a, on @user_script:45.",
        "ERR unsupported command 'EVALSHA'",
        "ERR Command is not available: 'EVALSHA'. See the documentation.",
        "ERR command 'evalsha' not support for normal user",
    ],
)
def test_meaning_command_missing_or_forbidden_is_not_allowed(error: str) -> None:
    assert meaning(error) is Refusal.NOT_ALLOWED
    assert is_server_wide(error)


@pytest.mark.parametrize(
    "error",
    [
        "WRONGTYPE Operation against a key holding the wrong kind of value script: 9a",
        "NOPERM No permissions to access a key",
        "NOPERM this user has no permissions to access one of the keys used as arguments",
        "ERR something about trade.TASK_USDC and trade.READONLY_USDC",
    ],
)
def test_meaning_key_refused_is_this_key(error: str) -> None:
    assert meaning(error) is Refusal.THIS_KEY
    assert not is_server_wide(error)


def test_meaning_script_unknown_is_no_script() -> None:
    assert meaning("NOSCRIPT No matching script.") is Refusal.NO_SCRIPT


@pytest.mark.parametrize(
    "error",
    [
        "READONLY You can't write against a read only replica.",
        "ERR Error running script (call to f_1a): @user_script:45: @user_script: 45: -READONLY "
        "You can't write against a read only replica.",
        "MOVED 3821 10.0.0.1:6379",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "CLUSTERDOWN The cluster is down",
        "UNBLOCKED force unblock from blocking operation, instance state changed "
        "(master -> replica?)",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "LOADING Redis is loading the dataset in memory",
        exceptions.AskError("3821 10.0.0.1:6379", status_code="ASK"),
        exceptions.ReadOnlyError("You can't write", status_code="READONLY"),
    ],
)
def test_meaning_redirect_to_another_server_is_unavailable(error: object) -> None:
    assert is_elsewhere(error)
    assert meaning(error) is Refusal.UNAVAILABLE


@pytest.mark.parametrize(
    "error",
    [
        "UNBLOCKED the stream key no longer exists",
        "WRONGTYPE ASK for another key",
        "OOM command not allowed",
        "ERR unknown command 'ASK'",
    ],
)
def test_meaning_refusal_of_the_right_server_is_not_elsewhere(error: str) -> None:
    assert not is_elsewhere(error)


def test_commands_of_the_append_script_are_named_where_it_is_refused_and_tried_by_check() -> None:
    text = SCRIPT if isinstance(SCRIPT, str) else SCRIPT.decode()
    needed = sorted(set(re.findall(r"redis\.p?call\('([A-Z]+)'", text)) | {"XADD"})
    message = refusal_text("ERR The user executing the script can't run this command or subcommand")
    tried = inspect.getsource(redis_server._check_rights)

    assert message.endswith(f"needs {', '.join(needed).lower()})")
    assert [name for name in needed if f'("{name}"' not in tried] == []
