"""synthgen audit export: what is known of a dataset, in the forms that others read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from synthgen.cli.audit.options import AnyDirectory, in_bounds, judging
from synthgen.cli.counting import Counting

if TYPE_CHECKING:
    from synthgen.audit.material import Material

FORMS = ("prov", "croissant", "csv")


def export(
    directory: AnyDirectory,
    form: Annotated[str, typer.Argument(help="prov, croissant or csv.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A file, instead of standard output.")
    ] = None,
) -> None:
    """Write W3C PROV-JSON, Croissant 1.1, or a table of every record. It verifies nothing: `verify` does."""
    from synthgen.audit.material import Material
    from synthgen.errors import UsageError
    from synthgen.yamlfile import did_you_mean

    if form not in FORMS:
        raise UsageError(f"there is no form {form!r}", hint=did_you_mean(form, FORMS))
    with in_bounds(), judging(), Counting() as tell:
        beside = output is None and sys.stdout.isatty()  # what is written has the screen for itself
        material = Material(directory, tell=None if beside else tell)
        with _opened(output, directory) as out:
            _write(form, material, out)


def _write(form: str, material: Material, out: TextIO) -> None:
    if form == "prov":
        from synthgen.audit.prov import write_prov

        write_prov(material, out)
    elif form == "csv":
        from synthgen.audit.spreadsheet import write_csv

        write_csv(material, out)
    else:
        import json

        from synthgen.audit.croissant import croissant

        json.dump(croissant(material), out, ensure_ascii=False, indent=2)
        out.write("\n")


@contextmanager
def _opened(output: Path | None, directory: Path) -> Iterator[TextIO]:
    """Standard output, or a file that is there when it is complete."""
    from synthgen.errors import UsageError

    if output is None:
        yield sys.stdout
        return
    if directory.resolve() in output.resolve().parents:
        raise UsageError(
            f"{output} would be a file that the manifest of {directory} does not name",
            hint="write it to another folder",
        )
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        try:
            with unfinished.open("w", encoding="utf-8", errors="backslashreplace", newline="") as out:
                yield out
            unfinished.replace(output)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from None
