"""YAML that remembers where everything stood, so that an error can point at its line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgen.errors import Problem, RecipeError

MAX_BYTES = 1_000_000
MAX_ALIASES = 100


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A parsed file: `data` in plain dicts, lists and scalars, `tree` the same with positions."""

    path: Path
    text: str
    data: Any
    tree: Any

    def position(self, loc: Sequence[str | int]) -> tuple[int, int]:
        """Line and column, from 1, of the deepest part of `loc` that the file has.

        Parts that the file does not have (names of union members in pydantic's errors) are passed over.
        """
        node: Any = self.tree
        line, column = 1, 1
        for part in loc:
            try:
                if hasattr(node, "keys") and part in node:
                    line, column = (number + 1 for number in node.lc.key(part))
                elif hasattr(node, "append") and isinstance(part, int) and part < len(node):
                    line, column = (number + 1 for number in node.lc.item(part))
                else:
                    continue
            except (AttributeError, KeyError, TypeError):
                continue
            node = node[part]
        return line, column

    def problem(self, loc: Sequence[str | int], message: str, hint: str | None = None) -> Problem:
        """A problem at that place of this file."""
        line, column = self.position(loc)
        return Problem(message, self.path, line, column, hint)


def read_yaml(path: Path) -> YamlFile:
    """Parse a YAML 1.2 file. Raises RecipeError with file, line and column on anything wrong with it."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise RecipeError([Problem("there is no such file", path, hint=_nearby(path))]) from None
    except OSError as error:
        raise RecipeError([Problem(f"cannot be read: {error.strerror}", path)]) from None
    if len(raw) > MAX_BYTES:
        raise RecipeError([Problem(f"is {len(raw):,} bytes, and {MAX_BYTES:,} is the most", path)])
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise RecipeError([Problem("is not UTF-8", path, line, hint=_utf8_hint())]) from None
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> YamlFile:
    """Parse YAML that was read from `path`. Raises RecipeError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="rt", pure=True)
    try:
        tree = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part) or "is not YAML"
        where = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise RecipeError([Problem(f"not valid YAML: {what}", path, *where)]) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise RecipeError([Problem(f"not valid YAML: {error}", path)]) from None
    return YamlFile(path, text, _Plain(path).convert(tree), tree)


class _Plain:
    """Turns ruamel's round-trip nodes into plain values; refuses tags and aliases beyond measure."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nodes = 0

    def convert(self, node: Any) -> Any:
        self.nodes += 1
        if self.nodes > MAX_ALIASES * 1000:
            raise RecipeError([Problem("grows too large when its aliases are expanded", self.path)])
        tag = getattr(getattr(node, "tag", None), "value", None)
        if tag is not None and not str(tag).startswith("tag:yaml.org,2002:"):
            line = getattr(getattr(node, "lc", None), "line", None)
            raise RecipeError(
                [Problem(f"the tag {tag} is not allowed", self.path, None if line is None else line + 1)]
            )
        if isinstance(node, dict):
            return {self._key(key): self.convert(value) for key, value in node.items()}
        if isinstance(node, list):
            return [self.convert(item) for item in node]
        if isinstance(node, bool) or node is None:
            return node
        for plain in (int, float, str):
            if isinstance(node, plain):
                return plain(node)
        if type(node).__name__ == "ScalarBoolean":
            return bool(node)
        if type(node).__name__ in ("TimeStamp", "date", "datetime"):
            return str(node)
        raise RecipeError([Problem(f"holds a {type(node).__name__}, which has no meaning here", self.path)])

    def _key(self, key: Any) -> Any:
        return self.convert(key) if isinstance(key, str | int | float | bool) else str(key)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """`did you mean 'x'?`, where something known is near; else what there is, where that is short."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are: {', '.join(names)}" if names and len(names) <= 40 else None


def _nearby(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"the folder {path.parent} does not exist either" if not path.parent.exists() else None
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.with_name(near[0])}?" if near else None


def _utf8_hint() -> str:
    return "convert it, for example with: iconv -f latin1 -t utf-8"
