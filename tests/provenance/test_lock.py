"""recipe.lock.yaml gives back what was written, so that its digest can be computed again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.provenance.lock import derived_fingerprint, fingerprint, lock_yaml, locked_as
from synthgen.yamlfile import read_yaml

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["no", "on", "~", "null", "1e5", "1_000", "0x1f", "0o7", "12:30", "2026-01-01", "a: b", "- a", "# a",
     "\n", "a\n\nb\n", " a ", "%", "&a", "*a", "!a", "\u0085", "\u2028", "\ufeff", "\x07", "=", "<<", "---",
     "...", "a\t"]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXTS | st.floats(
    allow_nan=False, allow_infinity=False
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda some: st.lists(some, max_size=3) | st.dictionaries(TEXTS, some, max_size=3), max_leaves=12
)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_what_is_read_is_what_was_written(said: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.lock.yaml"
        path.write_bytes(lock_yaml(said))
        again = read_yaml(path).data
    assert again == said
    assert fingerprint(again) == fingerprint(said)


def test_a_lock_is_known_by_its_digest_also_where_a_budget_cut_the_run() -> None:
    said = {"recipe": {"name": "a"}, "filters": []}
    cut = {**said, "cut": {"by": "seconds", "after": 3}}
    assert locked_as(fingerprint(said), cut, [])
    assert locked_as(derived_fingerprint(2, cut), cut, [1, 2])
    assert not locked_as(derived_fingerprint(2, cut), {**cut, "filters": [1]}, [1, 2])
    assert not locked_as(fingerprint(said), {**said, "recipe": {"name": "b"}}, [])
