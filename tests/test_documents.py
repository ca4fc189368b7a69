"""Documents in chunks: every character is in one, none is too long, and each says where it stands."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen import load
from synthgen.audit.place import place_of
from synthgen.audit.trace import trace
from synthgen.audit.verify import verify
from synthgen.chunks import cutter
from synthgen.documents import Document, markdown, plain
from synthgen.seed_kinds import Chunking
from tests.support import problems, project, read_jsonl, recipe, run_it, write

GUIDE = """# Guide

Read this first. It is short.

## Install

Take the package. Put it where it belongs.

```
# no heading
```

Usage
-----

Call it. Then wait.
"""
texts = st.text(st.sampled_from("ab .!?\n#-é三"), max_size=300)


def tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save(str(path))


def pdf(pages: list[str]) -> bytes:
    """A PDF with one line of text a page."""
    kids = " ".join(f"{3 + 2 * n} 0 R" for n in range(len(pages)))
    font = "/Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"]
    for n, text in enumerate(pages):
        drawn = f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET"
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {4 + 2 * n} 0 R "
            f"/Resources << {font} >> >>",
            f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream",
        ]
    out, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    xref = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    return (
        out + xref + f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF"
    ).encode()


def rows(root: Path, path: str, **more: Any) -> list[Any]:
    said = recipe(seeds={"doc": {"path": path, **more}})
    return list(load(project(root, said)).files["doc"])


@given(texts, st.sampled_from(["characters", "words"]), st.integers(1, 40), st.data())
def test_every_character_is_in_a_chunk_and_none_is_too_long(
    text: str, unit: str, size: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, size // 2))
    cut = cutter(Chunking(**{unit: size, "overlap": overlap}), None)
    for document in (plain(text), markdown(text)):
        found = list(cut.cut(document))
        assert found == list(cut.cut(document))
        covered = set()
        for chunk in found:
            assert document.text[chunk.start : chunk.end] == chunk.text == chunk.text.strip()
            assert 0 < cut.count(chunk.text) <= size
            covered.update(range(chunk.start, chunk.end))
        assert {at for at, mark in enumerate(text) if not mark.isspace()} <= covered
        for before, after in pairwise(found):
            assert before.start < after.start
            assert cut.count(text[after.start : before.end]) <= overlap


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["one", "two", "three.", "\n\n", "(x)", "y!"]), max_size=120), st.integers(2, 20)
)
def test_tokens_are_those_of_the_named_tokenizer(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], size: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "tokenizer.json"
    if not file.exists():
        tokenizer(file)
    text = " ".join(words)
    cut = cutter(Chunking(tokens=size, overlap=size // 3, tokenizer="x"), file)
    found = list(cut.cut(plain(text)))
    assert all(cut.count(chunk.text) <= size for chunk in found)
    assert not text.strip() or {at for at, m in enumerate(text) if not m.isspace()} <= {
        at for chunk in found for at in range(chunk.start, chunk.end)
    }


def test_chunks_end_at_headings_and_paragraphs_and_know_their_path(tmp_path: Path) -> None:
    write(tmp_path, {"data/guide.md": GUIDE})
    found = rows(tmp_path, "data/guide.md", chunk={"words": 16, "overlap": 3})
    assert [row.value["heading"] for row in found] == [["Guide"], ["Guide", "Install"], ["Guide", "Usage"]]
    assert found[1].value["text"].startswith("## Install")
    assert found[2].value["text"].startswith("Usage")
    for row in found:
        assert GUIDE[row.source["start"] : row.source["end"]] == row.value["text"]
    assert len({row.digest for row in found}) == 3


def test_rows_are_cut_by_a_field_with_their_line(tmp_path: Path) -> None:
    write(tmp_path, {"data/x.jsonl": '{"text": "a b c d"}\n{"text": "e f"}\n'})
    found = rows(tmp_path, "data/x.jsonl", field="text", chunk={"words": 2})
    assert [(row.value, row.source["row"], row.source["start"]) for row in found] == [
        ("a b", 1, 0), ("c d", 1, 4), ("e f", 2, 0),
    ]  # fmt: skip
    (wrong,) = problems(
        project(tmp_path, recipe(seeds={"doc": {"path": "data/x.jsonl", "chunk": {"words": 2}}}))
    )
    assert "no text to cut" in wrong.message
    assert wrong.line == 1


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ({"words": 5, "tokens": 5}, "in one of them"),
        ({}, "in one of them"),
        ({"words": 5, "overlap": 3}, "more than half"),
        ({"tokens": 5}, "name a `tokenizer:`"),
        ({"words": 5, "model": "smollm2-135m"}, "for chunks of so many"),
        ({"tokens": 5, "tokenizer": "data/none.json"}, "there is no file"),
        ({"tokens": 5, "tokenizer": "../out.json"}, "leads out of the project"),
        ({"tokens": 5, "tokenizer": "data/docs.jsonl"}, "neither a tokenizer.json nor a GGUF"),
        ({"words": 0}, "has to be 1 or more"),
    ],
)
def test_what_a_chunk_cannot_be(tmp_path: Path, chunk: dict[str, Any], message: str) -> None:
    said = recipe(seeds={"doc": {"path": "data/docs.jsonl", "field": "text", "chunk": chunk}})
    (found,) = problems(project(tmp_path, said))
    assert message in found.message
    assert found.line is not None


def test_a_run_over_chunks_is_proven_and_traced(tmp_path: Path) -> None:
    tokenizer(tmp_path / "data" / "tokenizer.json")
    write(tmp_path, {"data/guide.md": GUIDE * 3})
    chunk = {"tokens": 20, "overlap": 4, "tokenizer": "data/tokenizer.json"}
    said = recipe(seeds={"doc": {"path": "data/guide.md", "field": "text", "chunk": chunk}})
    result = run_it(load(project(tmp_path, said)), directory=tmp_path / "runs" / "a")
    again = run_it(load(tmp_path / "recipes" / "a.yaml"), directory=tmp_path / "again")
    statements = result.dir / "dataset" / "provenance" / "train.jsonl"
    assert statements.read_bytes() == (again.dir / "dataset" / "provenance" / "train.jsonl").read_bytes()
    told = [line["sources"][0] for line in read_jsonl(statements)]
    assert len(told) == result.kept > 5
    assert verify(result.dir).intact
    wanted = told[3]
    middle = (wanted["start"] + wanted["end"]) // 2
    found = trace(place_of(result.dir), f"data/guide.md:1:{middle}-{middle + 1}")
    by_id = {line["id"]: line["sources"][0] for line in read_jsonl(statements)}
    here = {id for id, source in by_id.items() if source["start"] <= middle < source["end"]}
    assert set(found.ids["kept"]) == here
    assert len(here) in (1, 2)


def test_html_is_read_as_text_with_headings(tmp_path: Path) -> None:
    pytest.importorskip("selectolax")
    page = (
        "<html><head><title>t</title><style>p {}</style></head><body><h1>Top</h1><p>One <b>bold</b> word."
        "<p>Two."
        "<script>evil()</script><h2>Sub &amp; more</h2><ul><li>a<li>b</ul><pre>x\n  y</pre></body></html>"
    )
    write(
        tmp_path,
        {
            "data/x.html": page,
            "data/deep.html": "<div>" * 900 + "deep",
            "data/bomb.html": "<div>\n" * 500_000,
        },
    )
    (row,) = rows(tmp_path, "data/x.html")
    assert row.value["text"] == "Top\n\nOne bold word.\n\nTwo.\n\nSub & more\n\na\n\nb\n\nx\n  y"
    found = rows(tmp_path, "data/x.html", chunk={"words": 6})
    assert [row.source["heading"] for row in found] == [
        ["Top"],
        ["Top", "Sub & more"],
        ["Top", "Sub & more"],
    ][: len(found)]
    assert rows(tmp_path, "data/deep.html")[0].value["text"] == "deep"
    (wrong,) = problems(project(tmp_path, recipe(seeds={"doc": {"path": "data/bomb.html"}})))
    assert ("nested more than" in wrong.message, wrong.line) == (True, 1001)


def test_pdf_pages_are_known(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    write(
        tmp_path, {"data/x.pdf": pdf(["The first page.", "The second page."]), "data/bad.pdf": b"%PDF-1.4 no"}
    )
    found = rows(tmp_path, "data/x.pdf", field="text", chunk={"words": 3})
    assert [(row.value, row.source["page"]) for row in found] == [
        ("The first page.", 1), ("The second page.", 2),
    ]  # fmt: skip
    (wrong,) = problems(project(tmp_path, recipe(seeds={"doc": {"path": "data/bad.pdf"}})))
    assert "not a PDF" in wrong.message


@pytest.mark.parametrize(("name", "package"), [("x.pdf", "pypdf"), ("x.html", "selectolax")])
def test_what_is_not_installed_is_named(
    tmp_path: Path, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    monkeypatch.setitem(__import__("sys").modules, f"{package}.lexbor", None)
    write(tmp_path, {f"data/{name}": b"x"})
    (wrong,) = problems(project(tmp_path, recipe(seeds={"doc": {"path": f"data/{name}"}})))
    assert package in wrong.message
    assert wrong.hint == "pip install 'synthgen-data[documents]'"


def test_the_path_of_headings() -> None:
    document = Document("x" * 50, [(0, 1, "a"), (10, 3, "b"), (20, 2, "c"), (30, 1, "d")])
    assert [document.heading_path(at) for at in (0, 15, 25, 45)] == [["a"], ["a", "b"], ["a", "c"], ["d"]]
