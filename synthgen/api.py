"""The Python interface: `load` a recipe, `run` it. The command line does nothing that is not here."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from synthgen.curate import Judged
from synthgen.driver import Driver
from synthgen.engines.base import Engine, request_timeout, seconds_of
from synthgen.errors import UsageError
from synthgen.loaded import Loaded
from synthgen.loading import load
from synthgen.run_result import Progress, RunResult
from synthgen.supervisor import FAULTS_RIDDEN_OUT, Patience

__all__ = ["load", "run"]


def run(
    recipe: Loaded | str | Path,
    directory: str | Path | None = None,
    *,
    engine: Engine | Mapping[str, Engine] | None = None,
    cancel: threading.Event | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_record: Callable[[Judged], None] | None = None,
    on_notice: Callable[[str], None] | None = None,
    confirm: Callable[[], bool] | None = None,
    retry_failed: bool = False,
    reuse: Sequence[str | Path] = (),
    concurrency: int | None = None,
    max_failures: int | None = None,
    patience: float | None = None,
) -> RunResult:
    """Run a recipe, going on with what the directory holds, and write its dataset.

    `engine` is an engine of the caller's own instead of the one the recipe names, or one for each name in
    `models:`. `cancel`, once set, stops the run within seconds, losing nothing. `on_record` sees each record
    as it is judged, in task order; `on_notice` is told when a model is fetched or an engine started again.
    `confirm` is asked before an edited recipe asks anything anew where it ran before.
    `concurrency` is for how many requests an engine takes at a time, whatever the recipe's options say.
    `reuse` names other runs, or folders of them, whose answers to equal requests are taken. With more than
    `max_failures` failed tasks the run stops. For `patience` seconds an engine's errors are ridden out
    while it answers nothing. Raises RecipeError, UsageError, RunError or EngineUnreachable.
    """
    loaded = recipe if isinstance(recipe, Loaded) else load(recipe)
    place = Path(directory) if directory is not None else loaded.runs / loaded.recipe.name
    driver = Driver(
        loaded,
        place,
        engines_for(loaded, engine, on_notice, concurrency),
        cancel=cancel,
        on_progress=on_progress,
        on_record=on_record,
        on_notice=on_notice,
        confirm=confirm,
        retry_failed=retry_failed,
        reuse=[Path(other) for other in reuse],
        max_failures=max_failures,
        patience=_patience(patience),
    )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(driver.run())
    with ThreadPoolExecutor(1) as thread:  # a notebook has a loop of its own, which cannot run another
        return thread.submit(asyncio.run, driver.run()).result()


def _patience(faults: float | None) -> Patience:
    if faults is None:
        faults = seconds_of(os.environ, "SYNTHGEN_PATIENCE", FAULTS_RIDDEN_OUT)
    return Patience(deadline=request_timeout(os.environ), faults=faults)


def engines_for(
    loaded: Loaded,
    own: Engine | Mapping[str, Engine] | None = None,
    notify: Callable[[str], None] | None = None,
    concurrency: int | None = None,
) -> dict[str, Engine]:
    """One engine for each model that a step or a filter asks: the caller's own, or the recipe's."""
    wanted = loaded.asked
    if own is None:
        from synthgen.engines import open_engines

        return open_engines(
            {name: loaded.models[name] for name in wanted},
            _sampling(loaded),
            root=loaded.project.root,
            base_url=loaded.base_url,
            concurrency=concurrency,
            notify=notify,
        )
    if isinstance(own, Mapping):
        missing = [name for name in wanted if name not in own]
        if missing:
            raise UsageError(f"no engine was given for the model {missing[0]!r}")
        return {name: own[name] for name in wanted}
    return dict.fromkeys(wanted, own)


def _sampling(loaded: Loaded) -> dict[str, Sequence[Mapping[str, object]]]:
    found: dict[str, list[Mapping[str, object]]] = {}
    for voice in loaded.voices.values():
        found.setdefault(voice.model, []).append(voice.sampling)
    return dict(found)
