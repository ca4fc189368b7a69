"""synthgen preview: a few records through everything, on the screen."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synthgen.cli.options import (
    OPEN,
    AllowOption,
    BaseUrlOption,
    EngineOption,
    JsonOption,
    ModelOption,
    RecipeArgument,
    bound,
    note,
    out,
    out_json,
    plain,
    results_only,
)
from synthgen.cli.show import show_row

if TYPE_CHECKING:
    from synthgen.curate import Judged
    from synthgen.loading import Loaded


def preview(
    recipe: RecipeArgument,
    count: Annotated[int, typer.Option("-n", help="How many records.", min=1, max=1000)] = 5,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    allow_path: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a handful of tasks through everything and show what was asked, each record, and each measurement.

    Nothing is left on disk. Records are shown whether they are kept or not.
    """
    from synthgen import api
    from synthgen.cli.progress import ProgressLine
    from synthgen.driver import Stop, cancel_on

    with results_only():
        loaded = api.load(
            recipe, engine=engine, model=model, base_url=base_url, tasks=count, allow=tuple(allow_path or ())
        )
    seen: list[Judged] = []
    line = ProgressLine()
    cancel = Stop()
    with tempfile.TemporaryDirectory(prefix="synthgen-preview-") as place:
        try:
            with cancel_on([signal.SIGINT, signal.SIGTERM], cancel, note), results_only():
                result = api.run(
                    loaded,
                    Path(place) / "run",
                    cancel=cancel,
                    on_progress=line,
                    on_record=seen.append,
                    on_notice=note,
                )
                asked = _asked(loaded, Path(place) / "run", seen)
        finally:
            line.end()
    if as_json:
        out_json([{**_as_json(judged), "steps": steps} for judged, steps in zip(seen, asked, strict=True)])
    else:
        shown: set[str] = set()
        for number, (judged, steps) in enumerate(zip(seen, asked, strict=True), 1):
            _show(loaded, judged, steps, shown, f"{number}/{len(seen)}")
    if result.outcome == "interrupted":
        note("interrupted")
        raise typer.Exit(130)


def _asked(loaded: Loaded, run: Path, seen: Sequence[Judged]) -> list[list[dict[str, Any]]]:
    """What each record was asked and answered, in order, with the step of each request."""
    import orjson

    from synthgen.steps import steps_asked
    from synthgen.view import RunView

    fans = [step.fan for step in loaded.steps]
    found = []
    with RunView(run) as view:
        for judged in seen:
            fields = orjson.loads(judged.body)["fields"] if judged.body is not None else None
            names, name, steps = steps_asked(fans, fields), None, []
            for key in judged.entry.requests:
                told = view.request(key)
                request, answer = told["request"], told["answer"]
                if request["attempt"] == 0:
                    name = next(names, None)
                steps.append(
                    {
                        "key": told["key"],
                        "step": name,
                        "attempt": request["attempt"],
                        "messages": request["messages"],
                        **({"reasoning": answer["reasoning"]} if answer and "reasoning" in answer else {}),
                        "answer": answer["text"] if answer else None,
                        "errors": [failure["error"] for failure in told["failures"]],
                    }
                )
            found.append(steps)
    return found


def _as_json(judged: Judged) -> dict[str, Any]:
    import orjson

    entry = judged.entry
    row = orjson.loads(judged.body)["row"] if judged.body is not None else {}
    return {
        "id": entry.id,
        **row,
        "branch": entry.branch,
        "state": entry.state,
        "dropped_by": entry.dropped_by,
        "error": entry.error,
        "measurements": dict(entry.verdicts),
    }


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in plain(text, 600).splitlines())


def _show(
    loaded: Loaded, judged: Judged, steps: Sequence[Mapping[str, Any]], before: set[str], number: str
) -> None:
    """`before` has the requests that an earlier branch of the same task showed."""
    shown = _as_json(judged)
    why = f" by {shown['dropped_by']}" if shown["dropped_by"] else ""
    where = f"  branch {shown['branch']}" if shown["branch"] != "0" else ""
    out(f"── {number}  {shown['id']}{where}  {shown['state']}{why}")
    for step in steps:
        again = f", asked again ({step['attempt']})" if step["attempt"] else ""
        if step["key"] in before:
            out(f"step {step['step']}{again}: as above")
            continue
        before.add(step["key"])
        out(f"step {step['step']}{again}")
        for message in step["messages"]:
            out(_indented(f"[{message['role']}] {message.get('content', OPEN)}"))
        if "reasoning" in step:
            out(_indented(f"(thought) {step['reasoning']}"))
        out(_indented(f"-> {step['answer']}"))
        for error in step["errors"]:
            out(_indented(f"! {error}"))
    show_row({name: shown[name] for name in loaded.shape.columns if name in shown}, 2000)
    if shown["error"]:
        out(f"failed: {plain(shown['error'])}")
    for link in loaded.chain:
        verdict = shown["measurements"].get(link.name)
        if verdict is None:
            continue
        value = "abstains" if verdict["value"] is None else f"{verdict['value']:g}"
        detail = plain(str(verdict["detail"]), 100) if verdict.get("detail") else ""
        limits = bound(link.min, link.max)
        out(f"  {link.name:<12} {value:<10} {limits:<14} {verdict['verdict']:<5} {detail}".rstrip())
    out("")
