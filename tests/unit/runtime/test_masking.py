"""Masking of passwords and secrets in URLs and texts, for secrets with any characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.runtime.masking import hide, masked_text, masked_url, passwords_in

# no unquoted ?: it begins the query of a URL
PASSWORDS = st.text(st.characters(exclude_characters="?", exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:pw@h:6379/0", "redis://:***@h:6379/0"),
        ("rediss://user:pw@h:6379/0", "rediss://user:***@h:6379/0"),
        ("redis://user:a@b/c#d@h:6379/0", "redis://user:***@h:6379/0"),
        ("redis://PASSWORD@h:6379/0", "redis://***@h:6379/0"),
        ("rediss://pa/ss@h:6379/0", "rediss://***@h:6379/0"),
        ("unix://PASSWORD@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("https://h/a@b", "https://h/a@b"),
        ("redis://h/0?username=u&password=pw", "redis://h/0?username=u&password=***"),
        ("redis://h:1/0?password=p@ss&db=1", "redis://h:1/0?password=***&db=1"),
        ("rediss://h/0?ssl_keyfile_password=x", "rediss://h/0?ssl_keyfile_password=***"),
        ("unix://u:pw@/run/redis.sock?db=1", "unix://u:***@/run/redis.sock?db=1"),
        ("unix:///tmp/a@b.sock", "unix:///tmp/a@b.sock"),
        ("embedded", "embedded"),
        ("redis:/:pw@h:6379/0", "***@h:6379/0"),
        ("redis//user:pw@h", "***@h"),
        (":pw@h", "***@h"),
    ],
)
def test_the_password_and_only_it_is_replaced(url: str, masked: str) -> None:
    assert masked_url(url) == masked


@given(PASSWORDS)
def test_the_masked_url_is_the_same_for_every_password(password: str) -> None:
    assert masked_url(f"redis://u:{password}@h:6379/0") == "redis://u:***@h:6379/0"


@given(st.text(min_size=1), st.text(), st.text())
def test_a_given_secret_never_stays_in_a_text(secret: str, before: str, after: str) -> None:
    masked = masked_text(before + secret + after, [secret])
    assert secret not in masked.replace("***", "")


def test_urls_inside_a_text_are_masked_in_place() -> None:
    text = "cannot reach redis://u:pw@h:1/0 nor 'redis://:x@h:2/0', giving up"
    assert (
        masked_text(text) == "cannot reach redis://u:***@h:1/0 nor 'redis://:***@h:2/0', giving up"
    )


def test_an_empty_secret_masks_nothing() -> None:
    assert masked_text("all is well", [""]) == "all is well"


@pytest.mark.parametrize(
    ("url", "passwords"),
    [
        ("redis://127.0.0.1:6379/0", ()),
        ("redis://user:pw@h:6379/0", ("pw",)),
        ("redis://:a%40b@h:6379/0", ("a%40b", "a@b")),
        ("redis://PASS%40WORD@h:6379/0", ("PASS%40WORD", "PASS@WORD")),
        ("redis://user@h:6379/0?password=pw", ("pw",)),
        ("rediss://h/0?ssl_keyfile_password=x&password=y", ("x", "y")),
        ("embedded", ()),
    ],
)
def test_passwords_of_a_url_are_found_as_written_and_as_decoded(
    url: str, passwords: object
) -> None:
    assert passwords_in(url) == passwords


@pytest.mark.parametrize(
    "refusal",
    [
        "unknown command 'AUTH', with args beginning with: 'user' 'hush' ",
        "ERR unknown command `auth`, with args beginning with: `hush`, ",
    ],
)
def test_a_login_that_redis_repeats_is_not_reported(refusal: str) -> None:
    assert masked_text(f"cannot be read: {refusal}").endswith("with args beginning with: ***")


def test_a_hidden_secret_is_masked_in_every_text_the_longest_first() -> None:
    hide(["hush", "", "hush-hush"])
    assert masked_text("login hush-hush or hush") == "login *** or ***"


@pytest.mark.timeout(20)  # linear in the length: 1 s; quadratic: hours
@pytest.mark.parametrize(
    "text",
    [
        "a." * 500_000 + "://",
        f"<{'a.' * 500_000}>://",
        "unknown command auth " * 50_000,
        "unknown command" + " " * 1_000_000 + "auth",
        "?" + "password" * 100_000 + "x://",
        "x://" + "?a" * 500_000 + "@",
    ],
    ids=lambda text: text[:12],
)
def test_a_text_of_absurd_length_is_masked_in_proportion_to_its_length(text: str) -> None:
    assert ":pw" not in masked_text(f"{text} redis://:pw@h")
