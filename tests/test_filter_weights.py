"""The models that filters measure by: their digests are in the lock, and other weights measure anew."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from synthgen.chain import ChainFilter, describe
from synthgen.digests import folder_digest
from synthgen.errors import RunError
from synthgen.filter_files import find_filter
from synthgen.filters._minilm import minilm_file
from synthgen.filters.ifd import SMOLLM2_135M
from synthgen.filters.toxicity import WEIGHTS
from synthgen.models import ALIASES
from synthgen.project import Project
from synthgen.recipe_filters import FilterUse
from synthgen.yamlfile import read_yaml
from tests.support import loaded, project, recipe, run_it

OWN = """\
    from pathlib import Path
    from synthgen import filter

    @filter(max=1)
    class own:
        def __init__(self, *, name: str = "a"):
            self.name = name

        @staticmethod
        def weights(*, name: str = "a"):
            return {name: Path(__file__).parent.parent / "data" / f"{name}.bin"}

        def measure(self, record):
            return 0.0
"""


def link(filter_name: str, root: Path, **params: Any) -> ChainFilter:
    found = find_filter(filter_name, Project(root))
    assert found is not None
    return ChainFilter.of_recipe(found, FilterUse(**params))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_shipped_ones_say_what_they_measure_by(tmp_path: Path) -> None:
    toxicity = link("toxicity", tmp_path)
    assert set(toxicity.weights) == {"model", "vectorizer", "toxicity", "all-MiniLM-L6-v2"}
    assert toxicity.weights["toxicity"] == digest(WEIGHTS)
    assert set(link("toxicity", tmp_path, detector="svm").weights) == {"model", "vectorizer"}
    assert link("semantic_duplicate", tmp_path).weights == {"all-MiniLM-L6-v2": digest(minilm_file())}
    assert set(link("language", tmp_path, **{"is": "en"}).weights) == {"lid.176"}
    folder = Path(str(files("langdetect"))) / "profiles"
    langdetect = link("language", tmp_path, **{"is": "en", "detector": "langdetect"})
    assert langdetect.weights == {"langdetect": folder_digest(folder)}
    assert link("ifd", tmp_path).weights == {"smollm2-135m": SMOLLM2_135M}
    assert ALIASES["smollm2-135m"].sha256 == SMOLLM2_135M
    assert "weights" not in describe(link("words", tmp_path))


def test_other_weights_are_another_filter_and_stand_in_the_lock(tmp_path: Path) -> None:
    named = {"data/a.bin": b"one", "data/b.bin": b"two"}
    said = recipe(filters=["own"])
    result = run_it(loaded(tmp_path, said, files=named, filters={"own": OWN}))
    [locked] = read_yaml(result.dir / "recipe.lock.yaml").data["filters"]
    assert locked["weights"] == {"a": hashlib.sha256(b"one").hexdigest()}
    before = link("own", tmp_path).key
    assert link("own", tmp_path).key == before != link("own", tmp_path, name="b").key
    (tmp_path / "data" / "a.bin").write_bytes(b"three")
    assert link("own", tmp_path).key != before


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    project(tmp_path, recipe(filters=["own"]), filters={"own": OWN})
    with pytest.raises(RunError, match=r"the weights of filter own: FileNotFoundError: .*a\.bin"):
        _ = link("own", tmp_path).key
