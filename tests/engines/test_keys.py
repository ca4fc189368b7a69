from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synthgen.engines.keys import key_for, server_url, user_config
from synthgen.errors import UsageError

BOTH = {"OPENAI_API_KEY": "sk-openai", "SYNTHGEN_API_KEY": "sk-mine", "TEAM": "sk-team"}


def key(url: str, *, named: bool = False, keys: dict[str, Any] | None = None) -> str | None:
    return key_for(url, named_by_user=named, environ=BOTH, config={"keys": keys} if keys else {})


def test_openais_key_goes_to_openai() -> None:
    assert key("https://api.openai.com/v1") == "sk-openai"
    assert key("https://API.OpenAI.com:443/v1/") == "sk-openai"


@pytest.mark.parametrize(
    "url",
    [
        "http://api.openai.com/v1",
        "https://api.openai.com:8443/v1",
        "https://api.openai.com.evil.example/v1",
        "https://evil.example/api.openai.com/v1",
        "https://evil.example/?api.openai.com",
        "https://evil.example#api.openai.com",
        "https://evil.example/@api.openai.com",
        "https://xapi.openai.com/v1",
        "https://openai.com/v1",
        "http://localhost:8000/v1",
    ],
)
def test_and_nowhere_else(url: str) -> None:
    assert key(url) is None


@pytest.mark.parametrize(
    "url", ["https://api.openai.com@evil.example/v1", "https://api.openai.com:x@evil.example/v1"]
)
def test_an_address_with_a_user_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"user name or a password for evil\.example"):
        key(url)


def test_where_parsers_disagree_the_clients_own_decides() -> None:
    # Whatever the outcome, never OpenAI's key to a host that is not OpenAI's.
    for url in (r"https://evil.example\@api.openai.com/v1", r"https://api.openai.com\@evil.example/v1"):
        try:
            host, got = server_url(url).host, key(url)
        except UsageError:
            continue
        assert got is None or host == "api.openai.com"


def test_the_users_own_key_goes_to_the_address_that_the_user_named_alone() -> None:
    assert key("http://10.0.0.5:8000/v1", named=True) == "sk-mine"
    assert key("http://10.0.0.5:8000/v1", named=False) is None
    assert key("https://api.openai.com/v1", named=False) == "sk-openai"


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("llm.example", "https://llm.example/v1"),
        ("llm.example:8443", "https://llm.example:8443/v1"),
        ("https://llm.example", "https://llm.example/v1"),
        ("http://llm.example:8000", "http://llm.example:8000/v1"),
        ("localhost:8000", "http://localhost:8000/v1"),
        ("[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_a_host_that_the_configuration_binds(place: str, url: str) -> None:
    assert key(url, keys={place: "env:TEAM"}) == "sk-team"


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("llm.example", "http://llm.example/v1"),  # in the clear
        ("llm.example", "https://llm.example:8443/v1"),  # another service of that host
        ("llm.example", "https://evil.llm.example/v1"),
        ("llm.example", "https://llm.example.evil.example/v1"),
        ("https://llm.example", "http://llm.example/v1"),
        ("localhost:8000", "http://localhost:8001/v1"),
    ],
)
def test_and_nothing_that_looks_like_it(place: str, url: str) -> None:
    assert key(url, keys={place: "env:TEAM"}) is None


def test_a_key_written_into_the_configuration_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError) as error:
        key("https://llm.example/v1", keys={"llm.example": "sk-canary"})
    assert "env:NAME" in str(error.value)
    assert "sk-canary" not in str(error.value)


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(UsageError, match="NOT_THERE"):
        key("https://llm.example/v1", keys={"llm.example": "env:NOT_THERE"})


def test_a_key_that_no_header_can_carry_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError) as error:
        key_for("http://h/v1", named_by_user=True, environ={"SYNTHGEN_API_KEY": "canary\r\nX: y"}, config={})
    assert "canary" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://h/v1", "http://", "file:///etc/passwd", "http://[/"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError, match="no http"):
        server_url(url)


def test_the_users_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    environ = {"SYNTHGEN_CONFIG": str(path)}
    assert user_config(environ) == {}
    path.write_text('[keys]\n"llm.example" = "env:TEAM"\n')
    assert user_config(environ) == {"keys": {"llm.example": "env:TEAM"}}
    path.write_text("[keys\n")
    with pytest.raises(UsageError, match=r"config\.toml"):
        user_config(environ)
