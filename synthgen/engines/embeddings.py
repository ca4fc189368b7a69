"""Embeddings of texts from an OpenAI-compatible server, for filters."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from typing import Any

from synthgen.engines.base import request_timeout
from synthgen.errors import EngineUnreachable

AT_ONCE = 64  # texts in one request
TRIES = 6
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


def embed(texts: Sequence[str], *, model: str, base_url: str) -> list[list[float]]:
    """The embedding of each text, asked of `base_url/embeddings`; faults that pass are ridden out a while.

    The key is the one that the user bound to that host, never one that a recipe names. Raises UsageError for
    an address that is none, EngineUnreachable where the server does not answer or answers something else.
    """
    return asyncio.run(_embed(texts, model, base_url))


async def _embed(texts: Sequence[str], model: str, base_url: str) -> list[list[float]]:
    import aiohttp

    from synthgen.engines.keys import key_for, server_url, user_config

    url = server_url(base_url)
    key = key_for(base_url, named_by_user=False, environ=os.environ, config=user_config(os.environ))
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=request_timeout(os.environ))
    found: list[list[float]] = []
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        for start in range(0, len(texts), AT_ONCE):
            part = list(texts[start : start + AT_ONCE])
            found += await _ask(session, f"{url}/embeddings", {"model": model, "input": part})
    return found


async def _ask(session: Any, address: str, asked: dict[str, Any]) -> list[list[float]]:
    import aiohttp

    said = ""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(2 ** (attempt - 1) * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
        try:
            async with session.post(address, json=asked, allow_redirects=False) as answer:
                if answer.status in PASSING:
                    said = f"HTTP {answer.status}"
                    continue
                if answer.status != 200:
                    text = (await answer.text())[:200]
                    raise EngineUnreachable(f"{address} answers HTTP {answer.status}: {text}")
                return _vectors(await answer.json(content_type=None), len(asked["input"]))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = str(error) or type(error).__name__
        except (ValueError, LookupError, TypeError):
            said = "what it answers are no embeddings"
    raise EngineUnreachable(
        f"{address} gives no embeddings: {said}",
        hint="what was embedded is stored; run the same command again to go on",
    )


def _vectors(answer: Any, count: int) -> list[list[float]]:
    rows = sorted(answer["data"], key=lambda row: int(row["index"]))
    vectors = [[float(number) for number in row["embedding"]] for row in rows]
    if len(vectors) != count or len({len(vector) for vector in vectors}) > 1 or not all(vectors):
        raise ValueError("another number of embeddings")
    return vectors
