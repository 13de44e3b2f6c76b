"""Splitting any text as a URL, without exceptions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.runtime.urls import split_url


def test_hosts_may_be_a_list_with_addresses_in_brackets() -> None:
    parts = split_url("redis+sentinel://u:p[@s1:26379,[::1]:26380/mymaster/0?a=b#c")

    assert (parts.scheme, parts.netloc) == ("redis+sentinel", "u:p[@s1:26379,[::1]:26380")
    assert (parts.path, parts.query, parts.fragment) == ("/mymaster/0", "a=b", "c")
    assert parts.password == "p["


@pytest.mark.parametrize("url", ["redis://h:1/0?x=1", "http://[::1]:8/"])
def test_a_url_is_split_and_joined_unchanged(url: str) -> None:
    assert split_url(url).geturl() == url


@given(text=st.text() | st.text("redis:/[]@?#,.%é\n\0"))
def test_hosts_of_any_text_end_where_a_path_or_question_begins(text: str) -> None:
    parts = split_url(f"redis+cluster://{text}")

    assert not {"/", "?", "#"} & set(parts.netloc)
    assert text.startswith(parts.netloc)


@given(text=st.text().filter(lambda text: "://" not in text))
def test_text_that_is_no_url_is_a_path(text: str) -> None:
    assert split_url(text) == ("", "", text, "", "")
