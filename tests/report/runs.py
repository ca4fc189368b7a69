"""Runs to report on: a small one with every kind of text that a model may write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthgen.run_result import RunResult
from tests.support import FakeEngine, loaded, recipe, run_it

HOSTILE = {
    "ends the script": "</script><script>document.title = 'taken'</script> and some more words after it",
    "an image": "<img src=x onerror=\"document.title='taken'\"> is an image that asks for a thing",
    "a comment": "<!--<script> is how a script may be made to swallow all of what follows it",
    "separators": "one line\u2028another line\u2029and one more that ends a line of script",
    "overrides": "read \u202eterces on si siht\u202c from the other side, and so on for some words",
    "zero width": "zero\u200bwidth and a mark\ufeff and a soft\u00adhyphen in words that look plain",
    "huge": "x" * 5000 + " is a word that is as long as it gets in any text",
    "null": "a null \x00 and a bell \x07 and an escape \x1b[31m red",
    "template": "{{ 7 * 7 }} {% raw %} ${7 * 7} `ticks` are what templates make much of",
    "arabic": "هذا نص مكتوب من اليمين إلى اليسار وفيه كلمات كثيرة عن البحر والجبال",
    "family": "a family \U0001f468\u200d\U0001f469\u200d\U0001f467 is one sign, joined from three",
}
PLAIN = [
    f"The {thing} of {place} is known for its {what}, and people have told of it for {n} years."
    for n, (thing, place, what) in enumerate(
        (thing, place, what)
        for thing in ("river", "bread", "bridge", "choir")
        for place in ("the north", "the old town", "the islands")
        for what in ("colour", "patience")
    )
]
NEAR = PLAIN[3].replace("people", "poets")


def rows() -> list[dict[str, Any]]:
    """Conversations, some of them too short, too long, or there twice."""
    texts = [*PLAIN, *HOSTILE.values(), NEAR, PLAIN[0], "Yes.", "No, never.", "word " * 90]
    return [
        {
            "kind": ("first", "second", "third")[number % 3],
            "messages": [
                {"role": "user", "content": f"What of the thing with the number {number}?"},
                {"role": "assistant", "content": text},
            ],
        }
        for number, text in enumerate(texts)
    ]


def curated(root: Path) -> RunResult:
    """They, curated."""
    said = recipe(
        name="chats",
        description="Words of <b>every</b> kind.",
        model=None,
        steps=None,
        seeds={"row": {"path": "data/docs.jsonl"}, "level": {"choice": {"easy": 0.75, "hard": 0.25}}},
        record={"from": "row"},
        filters=[{"words": {"min": 5, "max": 80}}, "refusal", {"duplicate": {"max": 0.8}}],
    )
    return run_it(loaded(root, said, rows=rows(), name="chats"), directory=root / "runs" / "chats")


def made(root: Path, answer: Any = None) -> RunResult:
    """A run that an engine answered."""
    said = recipe(filters=[{"words": {"min": 6}}, "refusal"])
    return run_it(loaded(root, said, rows=30), FakeEngine(answer), directory=root / "runs" / "a")
