"""The engines that answer requests, one a file, and opening the one that a recipe names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from synthgen.engines.base import Engine
from synthgen.recipe import ModelRef


def open_engines(
    models: Mapping[str, ModelRef], sampling: Mapping[str, Sequence[Mapping[str, Any]]], base_url: str | None
) -> dict[str, Engine]:
    """An engine for each model, two names of one model sharing it. Nothing is loaded or asked yet.

    `sampling` is what each model will be asked with. Raises UsageError for an option or a sampling
    parameter that an engine does not have, EngineUnreachable where a model cannot be had.
    """
    raise NotImplementedError
