"""The report of a run: what it says is what the run has, it is the same each time, and it changes nothing."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from synthgen.audit.erase import erase
from synthgen.audit.verify import verify
from synthgen.cli import app
from synthgen.engines.base import Request, RequestFailed
from synthgen.errors import RunError, UsageError
from synthgen.filters._minilm import tokens_in
from synthgen.recurate import recurate
from synthgen.report.collect import collect
from synthgen.report.compare import compare, comparison_text
from synthgen.report.page import comparison_page, page
from synthgen.report.text import text
from tests.report.runs import HOSTILE, NEAR, PLAIN, curated, made, rows
from tests.support import answer_of, tree


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return curated(tmp_path_factory.mktemp("chats")).dir


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_bytes().split(b"\n") if line]


@pytest.fixture(scope="module")
def said(chats: Path) -> dict[str, Any]:
    return collect(chats)


def test_counts_are_the_runs(chats: Path, said: dict[str, Any]) -> None:
    kept, dropped = lines(chats / "dataset" / "train.jsonl"), lines(chats / "dropped.jsonl")
    assert (said["counts"]["kept"], said["counts"]["dropped"]) == (len(kept), len(dropped))
    assert said["counts"]["planned"] == len(kept) + len(dropped)
    left = said["counts"]["planned"]
    for each in said["funnel"]:
        assert each["came"] == left
        assert each["dropped"] == sum(row["dropped_by"]["filter"] == each["filter"] for row in dropped)
        left -= each["dropped"]
    assert left == len(kept)


def test_examples_are_those_nearest_to_the_bound(chats: Path, said: dict[str, Any]) -> None:
    words = next(each for each in said["measurements"] if each["filter"] == "words")
    assert [edge["bound"] for edge in words["edges"]] == ["min", "max"]
    low, high = words["edges"]
    assert [each["value"] for each in low["dropped"]] == [2, 1]
    assert [each["value"] for each in high["dropped"]] == [90]
    journal = sqlite3.connect(chats / "run.sqlite")
    values = [
        json.loads(verdicts)["words"]["value"]
        for (verdicts,) in journal.execute("SELECT verdicts FROM records WHERE state = 'kept'")
    ]
    assert [each["value"] for each in low["kept"]] == sorted(values)[:3]
    assert [each["value"] for each in high["kept"]] == sorted(values, reverse=True)[:3]


def test_duplicates_stand_side_by_side(said: dict[str, Any]) -> None:
    near, same = said["duplicates"]
    assert "".join(part for _, part in near["left"]) == PLAIN[3]
    assert "".join(part for _, part in near["right"]) == NEAR
    assert [part for kind, part in near["right"] if kind == "other"] == ["poets"]
    assert (same["value"], same["left"]) == (1, [["same", PLAIN[0]]])


def test_shares_are_reached_and_wished(said: dict[str, Any]) -> None:
    fields = {each["field"]: each["values"] for each in said["shares"]}
    assert {each["value"]: each["wished"] for each in fields["level"]} == {"easy": 0.75, "hard": 0.25}
    for values in fields.values():
        assert sum(each["kept"] for each in values) == said["counts"]["kept"]
        assert sum(each["all"] for each in values) == said["counts"]["planned"]


def test_lengths_are_in_words_and_in_tokens(chats: Path, said: dict[str, Any]) -> None:
    parts = {(each["name"], each["unit"]): each for each in said["lengths"]["parts"]}
    kept = [row["messages"][-1]["content"] for row in lines(chats / "dataset" / "train.jsonl")]
    tokens = parts["answer in tokens", "tokens"]
    assert tokens["sample"] == len(kept)
    assert tokens["quantiles"]["1"] == max(map(tokens_in, kept))
    assert tokens["quantiles"]["0"] == min(map(tokens_in, kept)) >= parts["answer", "words"]["quantiles"]["0"]
    assert tokens_in("Zwölftonmusik") > 2 == tokens_in("two words")


def test_rows_come_with_their_provenance(chats: Path, said: dict[str, Any]) -> None:
    assert said["rows"]["sample"] == said["rows"]["of"] == said["counts"]["planned"]
    for row in said["rows"]["rows"]:
        assert row["sources"][0]["path"] == "data/docs.jsonl"
        assert set(row["measurements"]) == {"words", "refusal", "duplicate"}
    points = said["map"]["points"]
    assert {point["id"] for point in points} == {row["id"] for row in said["rows"]["rows"]}
    assert all(abs(point["x"]) <= 1 and abs(point["y"]) <= 1 for point in points)


def test_it_is_the_same_each_time_and_changes_nothing(chats: Path, said: dict[str, Any]) -> None:
    before = tree(chats)
    assert collect(chats) == said
    assert tree(chats) == before
    assert page(said) == page(json.loads(json.dumps(said)))


def test_a_page_beside_the_dataset_is_no_tampering(chats: Path) -> None:
    dataset = tree(chats / "dataset")
    shown = CliRunner().invoke(app, ["report", str(chats)])
    assert (shown.exit_code, shown.stdout.strip()) == (0, str(chats / "report.html"))
    assert (chats / "report.html").stat().st_size < 1_000_000
    assert tree(chats / "dataset") == dataset
    assert verify(chats).intact


def test_nothing_hostile_is_markup(said: dict[str, Any]) -> None:
    html = page(said)
    assert html.count("<script") == 2
    assert html.count("</script>") == 2
    for sign in ("<img", "<!--", "\u2028", "\u202e", "\u200b", "\ufeff", "\x00", "\x1b"):
        assert sign not in html, sign
    assert "http:" not in html
    assert "https:" not in html


def test_a_screen_of_text(said: dict[str, Any]) -> None:
    shown = text(said)
    assert len(shown) < 50
    assert f"{said['counts']['kept']} of {said['counts']['planned']} records are kept" in "\n".join(shown)
    assert any(line.startswith("  duplicate") and line.endswith("-2") for line in shown)


def test_what_an_engine_answered_over_time(tmp_path: Path) -> None:
    def answer(request: Request) -> Any:
        return (
            RequestFailed("the prompt is too long")
            if "number 3" in str(request.messages)
            else answer_of(request)
        )

    result = made(tmp_path, answer)
    said = collect(result.dir, meaning=False)
    [session] = said["sessions"]
    assert session["answers"] == sum(session["pace"]["answers"]) == said["tokens"]["answers"]
    assert sum(session["pace"]["tokens"]) == said["tokens"]["output_tokens"] == result.usage["output_tokens"]
    assert said["failures"]["errors"] == [{"error": "the prompt is too long", "count": result.failed}]
    assert said["counts"]["failed"] == result.failed
    assert said["map"] is None
    page(said)
    text(said)


def test_versions_and_comparisons(tmp_path: Path) -> None:
    run = curated(tmp_path).dir
    done = recurate(run, ["words.min=13"], project=tmp_path)
    version = run / "versions" / str(done.version)
    assert collect(version, meaning=False) == collect(run, done.version, meaning=False)
    said = compare(run, version, meaning=False)
    assert said["b"]["counts"]["kept"] == done.result.kept
    assert said["left"]["count"] == len(done.changes.leave)
    assert said["entered"]["count"] == len(done.changes.enter)
    assert [each["input"] for each in said["inputs"]] == ["filters.words.min"]
    assert all(each["text"] for each in said["left"]["records"])
    html = comparison_page(said)
    assert html.count("<script") == 2
    assert "filters.words.min" in "\n".join(comparison_text(said))
    assert "The samples differ in size" in "\n".join(comparison_text(said))
    same = compare(run, run, meaning=False)
    assert "more varied" in "\n".join(comparison_text(same))
    assert [same[name]["count"] for name in ("entered", "left", "changed")] == [0, 0, 0]
    assert compare(run, version, meaning=False) == said
    shown = CliRunner().invoke(app, ["report", str(version)])
    assert shown.stdout.strip() == str(version / "report.html")


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    for argument in (["report", str(tmp_path)], ["compare", str(tmp_path), str(tmp_path)]):
        with pytest.raises(UsageError, match="holds no run"):
            CliRunner().invoke(app, argument, catch_exceptions=False)
    run = curated(tmp_path).dir
    with pytest.raises(UsageError, match="has no version 9"):
        collect(run, 9)


def test_every_hostile_text_is_in_the_sample(said: dict[str, Any]) -> None:
    shown = [part["text"] for row in said["rows"]["rows"] for part in row["parts"]]
    assert [name for name, each in HOSTILE.items() if each[:1200] not in shown] == []


def test_a_page_goes_when_what_it_tells_of_does(tmp_path: Path) -> None:
    run = made(tmp_path).dir
    CliRunner().invoke(app, ["report", str(run)], catch_exceptions=False)
    victim = lines(run / "dataset" / "train.jsonl")[0]
    assert victim["id"][:12] in (run / "report.html").read_text()
    erase(run, [victim["id"]])
    assert not (run / "report.html").exists()
    said = collect(run, meaning=False)
    assert said["counts"]["erased"] == 1
    assert victim["messages"][-1]["content"] not in page(said)


def test_the_commands(chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthgen.report.meaning.embeddings", lambda texts: np.eye(len(texts), 384))

    def shown(*arguments: object) -> str:
        done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    assert json.loads(shown("report", chats, "--json"))["map"]["sample"] == len(rows())
    assert "planned" in shown("report", chats, "--text")
    assert shown("report", chats, "-o", tmp_path / "mine.html").strip() == str(tmp_path / "mine.html")
    assert json.loads(shown("compare", chats, chats, "--json"))["left"]["count"] == 0
    assert "kept in both" in shown("compare", chats, chats)
    shown("compare", chats, chats, "-o", tmp_path / "both.html")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["both.html", "mine.html"]
    for wrong in (
        ["report", str(chats), "--text", "-o", "x"],
        ["compare", str(chats), str(chats), "--json", "-o", "x"],
    ):
        with pytest.raises(UsageError, match="a page is written, or something is printed"):
            CliRunner().invoke(app, wrong, catch_exceptions=False)
    with pytest.raises(RunError, match="cannot be written"):
        CliRunner().invoke(app, ["report", str(chats), "-o", "/proc/no/page.html"], catch_exceptions=False)
