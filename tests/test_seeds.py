"""Seeds: every format, every way in which a file can be wrong, and no way out of the project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthgen import load
from synthgen.errors import Problem
from synthgen.project import Project
from synthgen.seed_kinds import ChoiceSeed, FileSeed
from synthgen.seeds import Draw, FileRows, drawn
from tests.support import jsonl, problems, project, recipe, write

ROWS = [{"text": "one", "n": 1}, {"text": 'zwö, "two"\nlines', "n": 2}, {"text": "三", "n": 3}]


def seed(path: str = "data/x.jsonl", **more: Any) -> dict[str, Any]:
    return recipe(seeds={"doc": {"path": path, **more}})


def values(root: Path, path: str, **more: Any) -> list[Any]:
    return [row.value for row in load(project(root, seed(path, **more))).files["doc"]]


def problem(root: Path, path: str, **more: Any) -> Problem:
    (found,) = problems(project(root, seed(path, **more)))
    return found


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def as_csv(rows: list[dict[str, Any]], mark: str = ",") -> str:
    quoted = ['"' + row["text"].replace('"', '""') + f'"{mark}{row["n"]}\n' for row in rows]
    return f"text{mark}n\n" + "".join(quoted)


def test_formats_by_row_agree(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "data/x.jsonl": jsonl(ROWS),
            "data/x.ndjson": jsonl(ROWS).replace("\n", "\r\n") + "\n\n",
            "data/x.json": json.dumps(ROWS, indent=2),
            "data/held.json": json.dumps({"about": "x", "rows": ROWS}),
            "data/x.csv": as_csv(ROWS),
            "data/x.tsv": as_csv(ROWS, "\t"),
            "data/bom.jsonl": b"\xef\xbb\xbf" + jsonl(ROWS).encode(),
            "data/bom.csv": b"\xef\xbb\xbf" + as_csv(ROWS).encode(),
            "data/bom.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
            "data/no-newline.jsonl": jsonl(ROWS).rstrip("\n"),
        },
    )
    parquet(tmp_path / "data" / "x.parquet", ROWS)
    texts = [row["text"] for row in ROWS]
    for file in sorted((tmp_path / "data").iterdir()):
        name = f"data/{file.name}"
        assert values(tmp_path, name, field="text") == texts, name
        numbers = values(tmp_path, name, field="n")
        assert numbers == (["1", "2", "3"] if "sv" in file.suffix else [1, 2, 3]), name
    assert values(tmp_path, "data/x.jsonl") == ROWS
    assert values(tmp_path, "data/x.parquet") == ROWS


def test_texts_by_file(tmp_path: Path) -> None:
    write(tmp_path, {"data/b.md": "# B\n", "data/a.md": "# A\n", "data/c.txt": "c", "data/skip.rst2": "x"})
    assert values(tmp_path, "data/*.md", field="text") == ["# A\n", "# B\n"]
    assert values(tmp_path, "data/c.txt") == [{"text": "c", "path": "data/c.txt"}]
    rows = list(load(project(tmp_path, seed("data/*.md", licence="CC0-1.0"))).files["doc"])
    assert [row.source["path"] for row in rows if row.source] == ["data/a.md", "data/b.md"]
    assert rows[0].source is not None
    assert rows[0].source["licence"] == "CC0-1.0"


def test_globs_are_sorted_and_go_down(tmp_path: Path) -> None:
    write(tmp_path, {f"data/{name}.jsonl": jsonl([{"text": name}]) for name in ("z", "a", "sub/m")})
    assert values(tmp_path, "data/**/[!d]*.jsonl", field="text") == ["a", "sub/m", "z"]
    assert values(tmp_path, "data/sub", field="text") == ["sub/m"]


def test_a_name_with_marks_of_a_glob_in_it_is_found(tmp_path: Path) -> None:
    write(tmp_path, {"data/x[1].jsonl": jsonl([{"text": "here"}])})
    assert values(tmp_path, "data/x[1].jsonl", field="text") == ["here"]


def test_a_row_says_where_it_came_from(tmp_path: Path) -> None:
    write(tmp_path, {"data/x.jsonl": "\n" + jsonl(ROWS[:1]) + "\n" + jsonl(ROWS[1:])})
    rows = list(load(project(tmp_path, seed(field="text"))).files["doc"])
    assert [row.source["row"] for row in rows if row.source] == [2, 4, 5]
    assert {row.source["path"] for row in rows if row.source} == {"data/x.jsonl"}
    assert len({row.digest for row in rows}) == 3


def test_format_can_be_given(tmp_path: Path) -> None:
    write(tmp_path, {"data/x.data": jsonl(ROWS)})
    assert problem(tmp_path, "data/x.data").hint == "set `format:`"
    assert values(tmp_path, "data/x.data", format="jsonl") == ROWS


@pytest.mark.parametrize(
    ("name", "content", "line", "message"),
    [
        ("x.jsonl", b"", None, "has no rows"),
        ("x.jsonl", b"\n\n", None, "has no rows"),
        ("x.csv", b"", None, "has no rows"),
        ("x.csv", b"text,n\n", None, "has no rows"),
        ("x.json", b"[]", None, "has no rows"),
        ("x.jsonl", b'{"text": "a"}\n{"text": "b', 2, "the file ends inside it"),
        ("x.jsonl", b'{"text": "a"}\n{text: b}\n{"text": "c"}\n', 2, "is not JSON"),
        ("x.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n', 2, "is not UTF-8"),
        ("x.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', 2, "has no field 'text'"),
        ("x.jsonl", b'{"text": "a"}\n["b"]\n', 2, "is not a mapping"),
        ("x.json", b'[{"text": "a"},\n{"text": }]', 2, "is not JSON"),
        ("x.json", b'{"a": [1], "b": [2]}', 1, "neither a list of rows"),
        ("x.json", b"5", 1, "is not a list of rows"),
        ("x.json", b'[{"text": "caf\xe9"}]', 1, "is not JSON"),
        ("x.csv", b"text,n\na,1\nb,2,3\n", 3, "header's 2 columns"),
        ("x.csv", b"text,text\na,1\nb,2\n", 1, "names the column 'text' twice"),
        ("x.csv", b"text,n\na,1\nb\n", 3, "header's 2 columns"),
        ("x.csv", b"text,n\na,1\nb,\xff\n", 3, "is not UTF-8"),
        ("x.csv", b'text,n\na,1\n"b"c,2\n', 3, "is not CSV"),
        ("x.csv", b'text,n\na,1\n"b,2\n', 3, "is not CSV"),
        ("x.tsv", b"text,n\na\t1\n", 2, "header's 1 columns"),
        ("x.parquet", b"PAR1 and then nothing", 1, "is not Parquet"),
        ("x.parquet", b"", 1, "is not Parquet"),
        ("x.txt", b"a\nb\xff", 2, "is not UTF-8"),
    ],
)
def test_a_bad_file_names_its_line(
    tmp_path: Path, name: str, content: bytes, line: int | None, message: str
) -> None:
    write(tmp_path, {f"data/{name}": content})
    found = problem(tmp_path, f"data/{name}", field="text")
    assert found.file == tmp_path / "data" / name
    assert found.line == line
    assert message in found.message
    assert line is None or found.hint is not None


def test_a_field_that_is_not_there_has_a_suggestion(tmp_path: Path) -> None:
    write(tmp_path, {"data/x.jsonl": jsonl([{"text": "a"}])})
    assert problem(tmp_path, "data/x.jsonl", field="txet").hint == "did you mean 'text'?"


def test_bad_rows_are_skipped_when_asked(tmp_path: Path) -> None:
    bad = (
        b'{"text": "a"}\nnonsense\n{"other": 1}\n{"text": "b"}\n{"text": "\xff"}\n{"text": "c"}\n{"text": "d'
    )
    write(tmp_path, {"data/x.jsonl": bad, "data/x.csv": 'text,n\na,1\nb\n"b"c,2\nc,3\n'})
    found = load(project(tmp_path, seed(field="text", on_bad_row="skip")))
    assert [row.value for row in found.files["doc"]] == ["a", "b", "c"]
    assert any("4 bad rows" in notice for notice in found.notices)
    assert values(tmp_path, "data/x.csv", field="text", on_bad_row="skip") == ["a", "c"]


def test_only_bad_rows_are_no_rows(tmp_path: Path) -> None:
    write(tmp_path, {"data/x.jsonl": b"nonsense\n"})
    assert "has no rows" in problem(tmp_path, "data/x.jsonl", on_bad_row="skip").message


def test_a_limit_reads_no_further(tmp_path: Path) -> None:
    write(tmp_path, {"data/x.jsonl": jsonl(ROWS[:2]) + "nonsense"})
    assert values(tmp_path, "data/x.jsonl", limit=2, field="n") == [1, 2]
    assert values(tmp_path, "data/x.jsonl", limit=1, field="n") == [1]
    assert problem(tmp_path, "data/x.jsonl", limit=3).line == 3


def test_long_cells_are_read(tmp_path: Path) -> None:
    long = "x" * 300_000
    write(tmp_path, {"data/x.csv": f"text\n{long}\n"})
    assert values(tmp_path, "data/x.csv", field="text") == [long]


def test_parquets_own_types_become_json(tmp_path: Path) -> None:
    import datetime
    import decimal

    rows = [{"at": datetime.datetime(2024, 5, 1, 10, tzinfo=datetime.UTC), "cost": decimal.Decimal("1.50"),
             "list": [1, 2], "none": None}]  # fmt: skip
    parquet(tmp_path / "data" / "x.parquet", rows)
    (value,) = values(tmp_path, "data/x.parquet")
    assert value["at"].startswith("2024-05-01T10:00:00")
    assert (value["cost"], value["list"], value["none"]) == ("1.50", [1, 2], None)


@pytest.mark.parametrize(
    "path",
    ["../outside/x.jsonl", "data/../../outside/x.jsonl", "../outside/*.jsonl", "../out*/none-such.jsonl",
     "data/link.jsonl", "data/folder/x.jsonl", "data/folder/*.jsonl", "data/link*.jsonl", "data/folder",
     "{outside}/x.jsonl", "{outside}/*.jsonl", "/etc/passwd", "/etc/host*", "../outside"],
)  # fmt: skip
def test_no_way_out_of_the_project(tmp_path: Path, path: str) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "project"
    write(outside, {"x.jsonl": jsonl([{"text": "secret"}])})
    write(root, {"data/y.jsonl": jsonl(ROWS)})
    (root / "data" / "link.jsonl").symlink_to(outside / "x.jsonl")
    (root / "data" / "folder").symlink_to(outside)
    said = seed(path.replace("{outside}", str(outside)), format="jsonl")
    (found,) = problems(project(root, said))
    assert "leads out of the project" in found.message or "there is no file" in found.message
    assert "secret" not in str(found)
    if "none-such" not in path:
        assert found.hint is not None
        assert "--allow-path" in found.hint
    assert (found.file, found.line is not None) == (root / "recipes" / "a.yaml", True)


def test_an_allowed_folder_is_read(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "project"
    write(outside, {"x.jsonl": jsonl([{"text": "open"}])})
    for path in ("../outside/x.jsonl", "../outside/*.jsonl", str(outside / "x.jsonl")):
        found = load(project(root, seed(path, field="text")), allow=[outside])
        (row,) = found.files["doc"]
        assert row.value == "open"
        assert row.source is not None
        assert row.source["path"] == "outside/x.jsonl"
    beside = tmp_path / "outside-too"
    write(beside, {"x.jsonl": jsonl([{"text": "secret"}])})
    assert "leads out" in problems(project(root, seed("../outside-too/x.jsonl")), allow=[outside])[0].message


@pytest.mark.parametrize("path", ["data/**.jsonl", "data/a\0b.jsonl", "x" * 5000, "data/[", "**/"])
def test_odd_paths_are_refused_with_a_sentence(tmp_path: Path, path: str) -> None:
    (found,) = problems(project(tmp_path, seed(path), rows=0))
    assert found.line is not None
    assert found.message


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.jsonl").symlink_to("x.jsonl")
    assert problem(tmp_path, "data/x.jsonl").line is not None


json_rows = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8")),
    max_size=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(json_rows, min_size=1, max_size=8))
def test_any_rows_come_back_from_jsonl(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(jsonl(rows), encoding="utf-8")
    found = list(FileRows(FileSeed(path="x.jsonl"), [file], Project(tmp_path)))
    assert [row.value for row in found] == rows
    digests = {json.dumps(row, sort_keys=True): found.digest for row, found in zip(rows, found, strict=True)}
    assert len(set(digests.values())) == len(digests)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet", "text"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, kind: str) -> None:
    from synthgen.errors import RecipeError

    file = tmp_path / "x"
    file.write_bytes(content)
    rows = FileRows(FileSeed(path="x", format=kind), [file], Project(tmp_path))  # type: ignore[arg-type]
    try:
        assert list(iter(rows)) == list(iter(rows))
    except RecipeError as error:
        assert error.problems[0].file == file  # noqa: PT017 - either outcome is right
    skipping = FileRows(
        FileSeed(path="x", format=kind, on_bad_row="skip"),
        [file],
        Project(tmp_path),  # type: ignore[arg-type]
    )
    list(iter(skipping))


def test_choices_by_weight() -> None:
    pool = drawn(ChoiceSeed(choice={"rare": 1, "common": 9}))
    picks = [pool.pick(Draw(7, "kind", b"%d" % task, 0)).value for task in range(5000)]
    # 3.3 standard deviations of a binomial of 5000 at 0.1 are 70
    assert abs(picks.count("rare") - 500) < 70
    even = drawn(ChoiceSeed(choice=["a", "b", "c", "d"]))
    picks = [even.pick(Draw(7, "kind", b"%d" % task, 0)).value for task in range(4000)]
    assert all(abs(picks.count(value) - 1000) < 91 for value in "abcd")
