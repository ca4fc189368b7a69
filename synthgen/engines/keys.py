"""Which API key goes to which server: decided by the user, never by a recipe."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgen.errors import UsageError

if TYPE_CHECKING:
    from yarl import URL

OPENAI_HOST = "api.openai.com"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def server_url(base_url: str) -> URL:
    """The address as the HTTP client will take it, without a slash at its end.

    Raises UsageError for what is no http(s) address, and for one that carries a password.
    """
    # The client's own parser, so that the host that a key was bound to is the host that gets it.
    from yarl import URL

    try:
        url = URL(base_url.strip())
        host = url.host
    except ValueError:
        host = None
    if host is None or url.scheme not in ("http", "https"):
        raise UsageError(
            "base_url is no http:// or https:// address",
            hint="it looks like http://localhost:8000/v1",
        )
    if url.user is not None or url.password is not None:
        raise UsageError(
            f"base_url holds a user name or a password for {host}",
            hint="a recipe keeps no secrets: take it out, and bind a key to the host instead "
            '([keys] in the configuration file: "host" = "env:NAME")',
        )
    return url.with_query(None).with_fragment(None).with_path(url.path.rstrip("/"), encoded=False)


def at_openai(base_url: str) -> bool:
    """Whether this is the address of OpenAI's own service."""
    return server_url(base_url).host == OPENAI_HOST


def config_path(environ: Mapping[str, str]) -> Path:
    """The user's own configuration file, whether it exists or not."""
    import platformdirs

    named = environ.get("SYNTHGEN_CONFIG")
    return Path(named) if named else Path(platformdirs.user_config_dir("synthgen")) / "config.toml"


def user_config(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the user's configuration file says; empty without one. Raises UsageError if it is broken."""
    path = config_path(environ)
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the configuration file {path}: {error}") from error


def key_for(
    base_url: str, *, named_by_user: bool, environ: Mapping[str, str], config: Mapping[str, Any]
) -> str | None:
    """The key to send to that server, or None for none.

    `named_by_user` says that the command line or the environment named this address. SYNTHGEN_API_KEY
    goes to such an address alone; else the user's configuration decides by host, where a bare host means
    https on its own port (or http on this machine), and `http://host:port` says otherwise; else
    OPENAI_API_KEY goes to OpenAI itself. Raises UsageError for a binding that cannot be followed.
    """
    url = server_url(base_url)
    if named_by_user and (key := environ.get("SYNTHGEN_API_KEY")):
        return _usable(key, "SYNTHGEN_API_KEY")
    bindings = config.get("keys", {})
    if not isinstance(bindings, Mapping):
        raise UsageError('[keys] in the configuration file is no table of "host" = "env:NAME"')
    for place in _places(url):
        if place in bindings:
            return _bound(place, bindings[place], environ)
    if url.host == OPENAI_HOST and url.scheme == "https" and url.port == 443:
        key = environ.get("OPENAI_API_KEY")
        return _usable(key, "OPENAI_API_KEY") if key else None
    return None


def _places(url: URL) -> list[str]:
    """How the user may have written this server's address in `[keys]`, most exact first."""
    host = f"[{url.host}]" if ":" in (url.host or "") else url.host
    exact = [f"{url.scheme}://{host}:{url.port}"]
    if url.is_default_port():
        exact.append(f"{url.scheme}://{host}")
    # In the clear only to this machine, unless the binding itself says http.
    if url.scheme == "https" or url.host in LOOPBACK:
        exact.append(f"{host}:{url.port}")
        if url.is_default_port():
            exact.append(f"{host}")
    return exact


def _bound(place: str, source: Any, environ: Mapping[str, str]) -> str:
    if not isinstance(source, str) or not source.startswith("env:"):
        # Never with the value: it may be the key itself.
        raise UsageError(
            f"[keys] in the configuration file gives {place!r} something else than env:NAME",
            hint=f'write "{place}" = "env:NAME" and put the key into the environment variable NAME',
        )
    name = source.removeprefix("env:")
    key = environ.get(name)
    if not key:
        raise UsageError(
            f"the configuration file takes the key of {place} from the environment variable {name}, "
            "which is not set",
            hint=f"export {name}=..., or take the line out of [keys]",
        )
    return _usable(key, name)


def _usable(key: str, name: str) -> str:
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"the key in {name} holds characters that no HTTP header can carry")
    return key
