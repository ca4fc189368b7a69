"""The digests of the models that filters measure by: of files, and of folders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from synthgen.digests import file_digest, folder_digest
from synthgen.filters.language import language
from synthgen.filters.pii import pii
from synthgen.yamlfile import read_yaml
from tests.support import loaded, recipe, run_it, write


def test_a_folder_is_another_wherever_a_name_or_a_byte_is(tmp_path: Path) -> None:
    files = {"a": b"1", "b/c": b"2", "b/__pycache__/c.pyc": b"3"}
    seen = set()
    for number, change in enumerate(({}, {"a": b"2"}, {"b/d": b""}, {"b/__pycache__/c.pyc": b"4"})):
        write(tmp_path / str(number), {**files, **change})
        seen.add(folder_digest(tmp_path / str(number)))
    assert len(seen) == 3


@pytest.mark.parametrize("detector", ["fasttext", "langdetect", "lingua"])
def test_every_detector_of_languages_has_a_digest(detector: str) -> None:
    if detector == "lingua":
        pytest.importorskip("lingua")
    definition: Any = language
    [(name, path)] = definition.target.weights(is_="en", detector=detector).items()
    assert path.exists()
    assert len((folder_digest if path.is_dir() else file_digest)(path)) == 64
    assert name in ("lid.176", detector)


def test_a_pipeline_of_spacy_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definition: Any = pii
    write(tmp_path, {"some_pipeline/__init__.py": "raise SystemExit\n", "some_pipeline/model/weights": b"1"})
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert definition.target.weights() == {}
    assert definition.target.weights(names="no_such_pipeline") == {}
    assert definition.target.weights(names="some_pipeline") == {"some_pipeline": tmp_path / "some_pipeline"}
    folder = str(tmp_path / "some_pipeline" / "model")
    assert definition.target.weights(names=folder) == {"names": Path(folder)}


def test_the_lock_has_it(tmp_path: Path) -> None:
    said = recipe(filters=[{"language": {"is": "en", "detector": "langdetect", "min": 0}}, "pii"])
    place = run_it(loaded(tmp_path, said), directory=tmp_path / "run").dir
    one, other = read_yaml(place / "recipe.lock.yaml").data["filters"]
    assert len(one["weights"]["langdetect"]) == 64
    assert "weights" not in other


def test_the_lock_has_that_of_a_real_pipeline_whose_names_are_found(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ada Lovelace"}])
    pipeline.to_disk(tmp_path / "pipeline")
    said = recipe(filters=[{"pii": {"names": str(tmp_path / "pipeline")}}])
    rows = [{"text": "Who was Ada Lovelace?"}, {"text": "Who was it?"}]
    result = run_it(loaded(tmp_path, said, rows=rows), directory=tmp_path / "run")
    assert (result.kept, result.dropped) == (1, 1)
    [link] = read_yaml(result.dir / "recipe.lock.yaml").data["filters"]
    assert link["weights"] == {"names": folder_digest(tmp_path / "pipeline")}
