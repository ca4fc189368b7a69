"""What others import by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import synthgen


def test_exported_names() -> None:
    assert synthgen.__all__ == [
        "FieldName", "InputFile", "Measurement", "PromptFile", "Question", "Record", "abstain",
        "default_model", "embed", "filter", "load", "read_prompt", "read_records", "run", "schema_validator",
    ]  # fmt: skip
    for name in synthgen.__all__:
        assert callable(getattr(synthgen, name))
        assert (getattr(synthgen, name).__doc__ or "").strip()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        synthgen.nothing  # noqa: B018


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert synthgen.__version__ == version("synthgen-data")


def test_importing_is_cheap() -> None:
    code = "import sys, synthgen; print(sorted({name.split('.')[0] for name in sys.modules}))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("pydantic", "jinja2", "pyarrow", "numpy", "aiohttp", "typer"):
        assert f"'{heavy}'" not in shown


def test_types_are_shipped() -> None:
    assert (Path(synthgen.__file__).parent / "py.typed").exists()


def test_a_filter_is_still_the_function_it_was() -> None:
    @synthgen.filter(max=0)
    def links(record: synthgen.Record) -> int:
        """How many links."""
        return record.text.count("http")

    record = synthgen.Record("id", {}, {"x": "http http"}, "http http")
    assert links(record) == 2
    assert (links.name, links.help, links.max, links.min, links.of) == (
        "links", "How many links.", 0, None, "answer",
    )  # fmt: skip


def test_errors_have_their_exit_codes() -> None:
    from synthgen.errors import EngineUnreachable, RecipeError, RunError, SynthgenError, UsageError

    codes = {UsageError("x"): 2, RecipeError([]): 2, RunError("x"): 1, EngineUnreachable("x"): 4}
    assert {type(error).__name__: error.exit_code for error in codes} == {
        type(error).__name__: code for error, code in codes.items()
    }
    assert str(SynthgenError("what", hint="do")) == "what\n  do"
