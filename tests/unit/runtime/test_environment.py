"""Variables from files: `<NAME>_FILE` names the file with the value of `<NAME>`."""

import os
from pathlib import Path

import pytest

from bridge.commands.console import read_token
from bridge.errors import ConfigError
from bridge.runtime.config import config_shape, load_config
from bridge.runtime.config_errors import leaves
from bridge.runtime.environment import MOST_BYTES, is_open_to_others, read_variables
from bridge.runtime.keys import load_key, secret_texts
from bridge.runtime.masking import masked_text
from bridge.runtime.secret import secret
from tests.unit.runtime.test_keys import PUBLIC, SECRET


def refusal(environ: dict[str, str], env_file: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read_variables(environ, env_file, ("SECRET_KEY",).__contains__)
    return str(caught.value)


def written(folder: Path, content: bytes) -> Path:
    file = folder / "value"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_the_account_key_comes_from_files_without_their_line_ends(tmp_path: Path, end: str) -> None:
    (tmp_path / "public").write_text(PUBLIC + end, newline="")
    (tmp_path / "secret").write_text(SECRET + end, newline="")
    environ = {
        "PUBLIC_KEY_FILE": str(tmp_path / "public"),
        "SECRET_KEY_FILE": str(tmp_path / "secret"),
    }

    key = load_key(environ, None, exchange_is_real=True)

    assert key is not None
    assert key.public_key_b64 == PUBLIC
    assert secret_texts("", environ, None) == (SECRET,)


def test_a_setting_comes_from_a_file_and_is_reported_as_of_the_file(tmp_path: Path) -> None:
    url = written(tmp_path, b"redis://:hush@h:1/0\n")
    misspelt = {"BRIDGE_REDIS__ULR_FILE": str(url)}

    assert load_config(None, None, {"BRIDGE_REDIS__URL_FILE": str(url)}).redis.url.endswith("h:1/0")
    with pytest.raises(ConfigError) as caught:
        load_config(None, None, misspelt)
    assert str(caught.value) == (
        f"BRIDGE_REDIS__ULR in the file {url} is not a setting; did you mean BRIDGE_REDIS__URL?"
    )


def test_no_name_of_a_setting_ends_with_file() -> None:
    assert [path for path in leaves(config_shape()) if str(path[-1]).endswith("_file")] == []


def test_the_value_and_a_file_with_it_cannot_both_be_set(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("SECRET_KEY=written\n")
    here = {"SECRET_KEY_FILE": str(written(tmp_path, b"hush"))}

    assert refusal(here | {"SECRET_KEY": "x"}) == (
        "SECRET_KEY (in the environment) and SECRET_KEY_FILE (in the environment) are both set: "
        "take one of them away"
    )
    assert refusal(here, env_file).startswith(f"SECRET_KEY (in {env_file}) and SECRET_KEY_FILE")
    # an empty value counts as not set
    found = read_variables(here | {"SECRET_KEY": ""}, None, ("SECRET_KEY",).__contains__)
    assert found["SECRET_KEY"].value == "hush"
    assert "hush" not in repr(found)


CONTENTS = {
    b"": "is empty: write the value into it",
    b" \n": "is empty: write the value into it",
    b"\xff\xfe": "is not UTF-8 text: write the value alone into it",
    b"x" * (MOST_BYTES + 1): "has more than 64 KB: it must hold one value",
}


@pytest.mark.parametrize("content", CONTENTS, ids=["empty", "blank", "binary", "large"])
def test_a_file_without_a_value_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    file = written(tmp_path, content)

    assert refusal({"SECRET_KEY_FILE": str(file)}) == (
        f"SECRET_KEY_FILE in the environment names {file}, which {CONTENTS[content]}"
    )


def test_a_path_that_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening a pipe waits for a writer

    def of(path: Path | str) -> str:
        return refusal({"SECRET_KEY_FILE": str(path)}).partition(", which ")[2]

    assert of(tmp_path / "none") == "cannot be read: No such file or directory"
    assert of(tmp_path / "pipe") == "is no file: write the value into a file of its own"
    assert of(tmp_path) == of("/dev/zero") == of(tmp_path / "pipe")
    assert of("a\0b") == "cannot be read: no file can be called so"


def test_only_requested_variables_are_read(tmp_path: Path) -> None:
    """The consumers' user may have no right to read the file of the account's key."""
    environ = {"SECRET_KEY_FILE": str(tmp_path / "none"), "SSL_CERT_FILE": str(tmp_path / "none")}

    assert load_config(None, None, environ).stream_names
    assert secret_texts("redis://:hush@h:1/0", environ, None) == ("hush",)


def test_a_secret_that_a_consumer_reads_is_masked(tmp_path: Path) -> None:
    file = written(tmp_path, b"0ut-of-a-file\n")

    assert secret("HOOK", {"HOOK_FILE": str(file)}) == "0ut-of-a-file"
    assert secret("HOOK", {}) == ""
    assert masked_text("at 0ut-of-a-file") == "at ***"


def test_the_token_of_the_console_comes_from_a_file_and_must_be_long_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONSOLE_TOKEN", raising=False)
    monkeypatch.setenv("CONSOLE_TOKEN_FILE", "value")
    written(tmp_path, b"0123456789abcdef\n")
    assert read_token(None) == "0123456789abcdef"

    written(tmp_path, b"short\n")
    with pytest.raises(ConfigError, match="the token of CONSOLE_TOKEN must be 16 plain characters"):
        read_token(None)


@pytest.mark.parametrize(("rights", "is_open"), [(0o400, False), (0o640, False), (0o644, True)])
def test_a_file_that_others_can_read_is_known(tmp_path: Path, rights: int, is_open: bool) -> None:
    file = written(tmp_path, b"hush")
    file.chmod(rights)

    assert is_open_to_others(file) is is_open
    assert not is_open_to_others(tmp_path / "none")
