"""The digest of a filter's code changes with every file of ours that it runs."""

from __future__ import annotations

import hashlib
from pathlib import Path

from synthgen.filter_files import load_file
from synthgen.filters.contamination import contamination
from synthgen.filters.words import words
from synthgen.measure import FilterDefinition

SOURCE = """
{imports}
from synthgen import filter


@filter(max=0)
def own(record):
    return 0
"""


def defined(folder: Path, imports: str) -> FilterDefinition:
    path = folder / "own.py"
    path.write_text(SOURCE.format(imports=imports))
    found = load_file(path).own
    assert isinstance(found, FilterDefinition)
    return found


def test_alone_it_is_that_of_the_file() -> None:
    assert words.file is not None
    assert words.code_sha256() == hashlib.sha256(words.file.read_bytes()).hexdigest()


def test_files_that_are_imported_are_part_of_it(tmp_path: Path) -> None:
    assert contamination.file is not None
    own = hashlib.sha256(contamination.file.read_bytes())
    assert contamination.code_sha256() != own.hexdigest()
    own.update(hashlib.sha256((contamination.file.parent / "_text.py").read_bytes()).hexdigest().encode())
    assert contamination.code_sha256() == own.hexdigest()

    importing = defined(tmp_path, "from synthgen.filters.words import words")
    assert importing.file is not None
    assert importing.code_sha256() != hashlib.sha256(importing.file.read_bytes()).hexdigest()
    other = defined(tmp_path, "from synthgen.measure import Record")
    assert other.file is not None
    assert other.code_sha256() == hashlib.sha256(other.file.read_bytes()).hexdigest()
