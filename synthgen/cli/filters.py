"""synthgen filters: what filters there are, and what each one says of itself."""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synthgen.cli.options import JsonOption, bound, note, out, out_json, plain, results_only, table
from synthgen.plural import many

if TYPE_CHECKING:
    from synthgen.chain import ChainFilter
    from synthgen.filter_examples import Outcome

app = typer.Typer(help="The filters that recipes here can use.", no_args_is_help=True, rich_markup_mode=None)

SHOWN = 5


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """Every filter that a recipe of this project can use, with its default bound."""
    from synthgen.errors import RecipeError
    from synthgen.filter_files import NoFilter

    filters = []
    for name in _names():
        try:
            item = _described(name)
        except NoFilter:
            continue
        except RecipeError as error:  # one that does not load hides no other
            note(str(error))
            continue
        if item is not None:
            filters.append(item)
    if as_json:
        out_json(filters)
        return
    rows = [("filter", "from", "of", "bound", "measures")]
    rows += [
        (
            item["name"],
            item["origin"],
            item["of"],
            bound(item["min"], item["max"]) or "given by the recipe",
            str(item["help"]).partition("\n")[0],
        )
        for item in filters
    ]
    out(table(rows))


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="A filter's name.")], as_json: JsonOption = False) -> None:
    """What a filter measures, its parameters, its source and where it is weak."""
    from synthgen.errors import UsageError
    from synthgen.yamlfile import did_you_mean

    item = _described(name)
    if item is None:
        raise UsageError(f"there is no filter {name!r}", hint=did_you_mean(name, _names()))
    if as_json:
        out_json(item)
        return
    out(f"{item['name']}  ({item['origin']}, {item['kind']})")
    out("")
    out(item["help"] or "no help: the filter has no docstring")
    out("")
    out(
        f"of: {item['of']}    bound: {bound(item['min'], item['max']) or 'given by the recipe'}    "
        f"action: {item['action']}"
    )
    for parameter, said in item["parameters"].items():
        out(
            f"{parameter}: {said['type']}" + (f" = {said['default']}" if "default" in said else " (required)")
        )


@app.command("new")
def new(name: Annotated[str, typer.Argument(help="The new filter's name.")]) -> None:
    """Write filters/NAME.py of this project: a filter that works, with examples that test it."""
    from synthgen.errors import UsageError
    from synthgen.filter_examples import TEMPLATE

    if keyword.iskeyword(name):
        raise UsageError(f"{name!r} cannot name a filter: it is a keyword of Python")
    if not name.isidentifier() or name.startswith("_"):
        raise UsageError(
            f"{name!r} cannot name a filter", hint="letters, digits and _, beginning with a letter"
        )
    file = Path("filters") / f"{name}.py"
    if file.exists():
        raise UsageError(f"{file} is there already")
    if name in _names():
        raise UsageError(
            f"there is a filter {name!r}, and yours would take its place in every recipe of this project",
            hint=f"choose another name, such as my_{name}",
        )
    file.parent.mkdir(exist_ok=True)
    file.write_text(TEMPLATE.format(name=name, title=name.replace("_", " ").capitalize() + "."))
    out(f"{file}")
    note(f"change it, then: synthgen filters test {name}")


@app.command("test")
def try_out(
    name: Annotated[str, typer.Argument(help="A filter's name.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", help="A parameter or bound such as is=en or max=3.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="A run directory: measure its records too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a filter on the examples in its docstring, and on a run's records to see what it would drop."""
    from synthgen.chain import ChainFilter
    from synthgen.errors import UsageError
    from synthgen.filter_changes import filter_use, value_of
    from synthgen.filter_examples import examples, try_examples
    from synthgen.filter_files import check_params, find_filter
    from synthgen.input_files import input_files
    from synthgen.project import Project
    from synthgen.yamlfile import did_you_mean

    with results_only():
        found = find_filter(name, Project(Path.cwd()))
        if found is None:
            raise UsageError(f"there is no filter {name!r}", hint=did_you_mean(name, _names()))
        params = {}
        for each in param or ():
            key, equals, text = each.partition("=")
            if not (key and equals):
                raise UsageError(f"{each!r} is no parameter with a value", hint="for example --param max=3")
            params[key] = value_of(text)
        own = {key: value for key, value in params.items() if key not in ("min", "max", "of", "action")}
        files, unread = input_files(found.definition, own, Project(Path.cwd()))
        for _, message, hint in [*check_params(found.definition, own), *unread]:
            raise UsageError(message, hint=hint or "--param NAME=VALUE")
        link = ChainFilter.of_recipe(found, filter_use(name, params), files=files)
        if link.asks:
            hint = "see what it makes of a few records with `synthgen preview RECIPE`"
            raise UsageError(f"{name} asks a model, and a test asks none", hint=hint)
        try:
            given = examples(found.definition.help)
        except ValueError as error:
            raise UsageError(f"the docstring of {name}: {error}") from None
        if not given and run is None:
            hint = 'write them under "Examples:" in its docstring, or give --run DIR'
            raise UsageError(f"{name} has no examples, so there is nothing to test", hint=hint)
        outcomes = try_examples(link, given)
        measured = _measured(run, link) if run is not None else None
    wrong = [outcome for outcome in outcomes if not outcome.right]
    if as_json:
        out_json({"examples": [_outcome(each) for each in outcomes], "run": measured})
    else:
        _show_outcomes(name, outcomes, measured)
    if wrong or (measured is not None and measured["failed"]):
        raise typer.Exit(1)


def _outcome(each: Outcome) -> dict[str, Any]:
    return {
        "text": each.example.text,
        "expected": each.example.expected,
        "value": each.value,
        "verdict": each.verdict,
        "right": each.right,
        "error": each.error,
    }


def _show_outcomes(name: str, outcomes: Sequence[Outcome], measured: dict[str, Any] | None) -> None:
    from synthgen.cli.stats import show_distribution

    for each in outcomes:
        value = each.error or ("abstains" if each.value is None else f"{each.value:g}, {each.verdict}")
        sign = "ok   " if each.right else "WRONG"
        text = plain(repr(each.example.text), 70)
        out(f"{sign} {text} -> {each.example.expected}  ({plain(value, 200)})")
    if outcomes:
        out(f"{sum(each.right for each in outcomes)} of {len(outcomes)} examples are right")
    if measured is not None:
        show_distribution(measured)


def _measured(run: Path, link: ChainFilter) -> dict[str, Any]:
    """The distribution of a filter over the records of a run, and on how many of them it failed."""
    from synthgen.chain import Measuring
    from synthgen.errors import UsageError
    from synthgen.record import PARTS
    from synthgen.stats import Measured
    from synthgen.view import RunView
    from synthgen.yamlfile import did_you_mean

    if link.runs:
        raise UsageError(f"{link.name} compares records with one another; curate a run with it instead")
    measuring = Measuring([link])
    failed = 0
    measured = Measured(link.name, link.of, link.min, link.max, link.action)
    with RunView(run) as view:
        for ids, bodies in view.contents():
            if link.of not in PARTS:
                for body in bodies:
                    if link.of not in body["row"] and link.of not in body["fields"]:
                        known = {*PARTS, *body["row"], *body["fields"]}
                        raise UsageError(
                            f"the run's records have no field {link.of!r}", hint=did_you_mean(link.of, known)
                        )
            for result in measuring.measure(ids, bodies, [()] * len(ids)).results:
                measurement = result[link.name]
                if isinstance(measurement, str):
                    failed += 1
                    if failed <= SHOWN:
                        note(measurement)
                    continue
                measured.count(measurement.value, link.judge(measurement.value))
    if failed:
        note(
            f"{link.name} failed on {many(failed, 'record')}"
            + (", of which these are the first" if failed > SHOWN else "")
        )
    return measured.as_json() | {"failed": failed}


def _names() -> list[str]:
    from synthgen.filter_files import filter_names
    from synthgen.project import Project

    return filter_names(Project(Path.cwd()))


def _type(annotation: Any) -> str:
    """A type as it is written, without the checks that it may be annotated with."""
    from inspect import formatannotation
    from types import UnionType
    from typing import Union, get_args, get_origin

    if hasattr(annotation, "__metadata__"):
        return _type(annotation.__origin__)
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join("None" if part is type(None) else _type(part) for part in get_args(annotation))
    return formatannotation(annotation)


def _default(value: Any) -> str:
    return str(value) if isinstance(value, Path) else repr(value)


def _described(name: str) -> dict[str, Any] | None:
    from synthgen.filter_files import find_filter
    from synthgen.project import Project

    with results_only():
        found = find_filter(name, Project(Path.cwd()))
    if found is None:
        return None
    definition = found.definition
    return {
        "name": definition.name,
        "origin": found.origin,
        "kind": definition.kind,
        "help": definition.help,
        "of": definition.of,
        "min": definition.min,
        "max": definition.max,
        "action": definition.action,
        "parameters": {
            key: {"type": _type(parameter.annotation)}
            | ({} if parameter.default is parameter.empty else {"default": _default(parameter.default)})
            for key, parameter in definition.parameters.items()
        },
    }
