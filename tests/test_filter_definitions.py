"""What `@filter` refuses where the file is loaded: a slip must not switch a filter off."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import loaded, problems, project, read_jsonl, recipe, run_it

SLIPS = [
    (
        '@filter(max=0, action="explode")\ndef mine(record): return 1',
        "action is one of drop, flag, redact, not 'explode'",
    ),
    (
        '@filter(kind="runn")\nclass mine:\n    def measure(self, record): return 1',
        "kind is one of record, engine, run",
    ),
    ('@filter(null="ignore")\ndef mine(record): return 1', "null is one of keep, drop, fail, not 'ignore'"),
    ('@filter(min=float("nan"))\ndef mine(record): return 1', "a bound is a number, not nan"),
    ('@filter(max="5")\ndef mine(record): return 1', "a bound is a number, not '5'"),
    ("@filter(of=3)\ndef mine(record): return 1", "3 is no name"),
    ("@filter\nclass mine:\n    pass", "needs a method `measure`"),
    (
        '@filter(kind="run", max=1)\nclass mine:\n    def features(self, r): ...\n    resolve = features',
        "needs a method `keep`",
    ),
    ('@filter(kind="engine", max=1)\nclass mine:\n    def measure(self, r, a): ...', "needs a method `ask`"),
    ('@filter(kind="run", max=1)\ndef mine(record): return 1', "a filter of kind run is a class"),
]


@pytest.mark.parametrize(("code", "said"), SLIPS, ids=[said[:30] for _, said in SLIPS])
def test_slips_are_told_with_their_file(tmp_path: Path, code: str, said: str) -> None:
    path = project(
        tmp_path,
        recipe(filters=[{"mine": {"max": 3}}]),
        filters={"mine": f"from synthgen import filter\n{code}\n"},
    )
    [found] = problems(path)
    assert said in found.message
    assert found.file is not None
    assert found.file.name == "mine.py"


FAILING = [
    ("return 'text'", "a filter returns a number", None),
    ("return float('nan')", "must be finite", None),
    ("return Measurement(1, {'a': object()})", "must fit into JSON", None),
    ("return int('x')", "invalid literal", "line 4 of mine.py"),
]


@pytest.mark.parametrize(("body", "said", "line"), FAILING)
def test_an_error_names_a_line_of_the_filter_or_none(
    tmp_path: Path, body: str, said: str, line: str | None
) -> None:
    code = f"from synthgen import Measurement, filter\n@filter(max=3)\ndef mine(record):\n    {body}\n"
    result = run_it(loaded(tmp_path, recipe(filters=["mine"]), rows=2, filters={"mine": code}))
    [row, _] = read_jsonl(result.dir / "failed.jsonl")
    assert said in row["error"]
    assert (f"({line})" in row["error"]) if line else ("line" not in row["error"])
    assert "measure.py" not in row["error"]
