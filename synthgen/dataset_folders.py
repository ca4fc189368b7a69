"""The data files of a folder: of a dataset as hubs lay it out, or as `datasets` saves it to disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROW_FORMATS = (".parquet", ".arrow", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
ABOUT = frozenset(
    {
        "dataset_info.json",
        "dataset_infos.json",
        "dataset_dict.json",
        "state.json",
        "manifest.json",
        "croissant.json",
    }
)
SPLITS = ("train", "validation", "valid", "val", "dev", "test", "eval")
FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)


def data_files(folder: Path, split: str | None = None) -> list[Path]:
    """The files that hold a folder's rows, sorted; of one split, or of all.

    What the card (README.md) configures comes first, as on a hub. Else: files of rows in the folder, in its
    `data/` and in folders named for splits, of the first format in ROW_FORMATS that there is; where there is
    none of them, every file of the folder, each a text.
    """
    configured = _configured(folder)
    if configured:
        return sorted({path for name, path in configured if split in (None, name)})
    places = [folder, folder / "data", *(folder / name for name in _split_folders(folder))]
    files = [path for place in places if place.is_dir() for path in place.iterdir() if _is_data(path)]
    formats = {path.suffix.lower() for path in files}
    wanted = next((suffix for suffix in ROW_FORMATS if suffix in formats), None)
    if wanted is not None:
        files = [path for path in files if path.suffix.lower() == wanted]
    else:
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    return sorted(path for path in files if split is None or _in_split(path, folder, split))


def _is_data(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in ROW_FORMATS and path.name not in ABOUT


def _split_folders(folder: Path) -> Sequence[str]:
    return [path.name for path in folder.iterdir() if path.is_dir() and path.name in SPLITS]


def _in_split(path: Path, folder: Path, split: str) -> bool:
    if path.parent != folder and path.parent.name == split:
        return True
    return re.match(rf"{re.escape(split)}(?![A-Za-z0-9])", path.name) is not None


def _configured(folder: Path) -> list[tuple[str, Path]]:
    """Split and file, as the first configuration of the card names them."""
    card = folder / "README.md"
    try:
        head = FRONT_MATTER.match(card.read_text(errors="replace")) if card.is_file() else None
    except OSError:
        return []
    if head is None:
        return []
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        said = YAML(typ="safe", pure=True).load(head[1])
    except YAMLError:
        return []
    configs = said.get("configs") if isinstance(said, dict) else None
    first = configs[0] if isinstance(configs, list) and configs and isinstance(configs[0], dict) else {}
    found = []
    for split, pattern in _patterns(first.get("data_files")):
        if pattern and not Path(pattern).is_absolute() and ".." not in Path(pattern).parts:
            found += [(split, path) for path in folder.glob(pattern) if path.is_file()]
    return found


def _patterns(said: Any) -> list[tuple[str, str]]:
    """`data_files` of a card: a pattern, a list of patterns, or a list of {split, path}."""
    if isinstance(said, str):
        return [("train", said)]
    found: list[tuple[str, str]] = []
    for item in said if isinstance(said, list) else []:
        if isinstance(item, str):
            found.append(("train", item))
        elif isinstance(item, dict):
            paths = item.get("path")
            for path in paths if isinstance(paths, list) else [paths]:
                if isinstance(path, str):
                    found.append((str(item.get("split", "train")), path))
    return found
