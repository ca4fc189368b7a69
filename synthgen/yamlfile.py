"""YAML that remembers where everything stood, so that an error can point at its line."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from synthgen.errors import Problem, RecipeError

MAX_BYTES = 1_000_000
LOCK_BYTES = 8_000_000  # of a recipe.lock.yaml: it names every file that seeds came from
MAX_ALIASES = 100
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}


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


def read_yaml(path: Path, most: int = MAX_BYTES) -> YamlFile:
    """Parse a YAML 1.2 file of so many bytes at most.

    Raises RecipeError with file, line and column on anything wrong with it.
    """
    return parse_yaml(_text(path, most), path)


def read_plain(path: Path, most: int = MAX_BYTES) -> Any:
    """What `read_yaml` has as `data`, to be read and not changed. Raises RecipeError."""
    return parse_plain(_text(path, most), path)


def parse_plain(text: str, path: Path) -> Any:
    """What `parse_yaml` has as `data`, to be read only: equal texts share it. Raises RecipeError."""
    try:
        return _plain(text)
    except RecipeError as error:
        raise RecipeError([dataclasses.replace(problem, file=path) for problem in error.problems]) from None


@lru_cache(16)
def _plain(text: str) -> Any:
    """An audit meets the lock of a run twice in each version, and the pure parser takes its time."""
    return parse_yaml(text, Path()).data


def _text(path: Path, most: int) -> str:
    if path.is_char_device() or path.is_block_device() or path.is_fifo():
        raise RecipeError([Problem("is no regular file", path)])
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except FileNotFoundError:
        raise RecipeError([Problem("there is no such file", path, hint=_nearby(path))]) from None
    except OSError as error:
        raise RecipeError([Problem(f"cannot be read: {error.strerror}", path)]) from None
    if len(raw) > most:
        size = path.stat().st_size
        raise RecipeError([Problem(f"is {size:,} bytes, and {most:,} is the most", path)])
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise RecipeError([Problem("is not UTF-8", path, line, hint=_utf8_hint())]) from None


def parse_yaml(text: str, path: Path) -> YamlFile:
    """Parse YAML that was read from `path`. Raises RecipeError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.reader import ReaderError

    yaml = YAML(typ="rt", pure=True)
    try:
        tree = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part) or "is not YAML"
        where = (mark.line + 1, mark.column + 1) if mark else (None, None)
        said = f"not valid YAML: {what}"
        line = text.split("\n")[mark.line] if mark and mark.line <= text.count("\n") else ""
        raise RecipeError([Problem(said, path, where[0], where[1], _remedy(what, line))]) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        said = f"not valid YAML: the character U+{ord(text[error.position]):04X} may not stand in it"
        raise RecipeError([Problem(said, path, line)]) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise RecipeError([Problem(f"not valid YAML: {error}", path, _line_of_day(text))]) from None
    try:
        return YamlFile(path, text, _Plain(path).convert(tree, 1, 1), tree)
    except RecursionError:
        raise RecipeError([Problem("is nested too deeply", path)]) from None


class _Plain:
    """Turns ruamel's round-trip nodes into plain values; refuses tags, and what JSON cannot hold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nodes = 0

    def convert(self, node: Any, line: int | None = None, column: int | None = None) -> Any:
        """The plain value of a node that begins at this line and column, from 1."""
        self.nodes += 1
        if self.nodes > MAX_ALIASES * 1000:
            raise RecipeError([Problem("grows too large when its aliases are expanded", self.path)])
        tag = getattr(getattr(node, "tag", None), "value", None)
        if tag is not None and tag not in _TAGS:
            raise self._wrong(f"the tag {tag} is not allowed", line, column)
        if type(node).__name__ == "TaggedScalar":
            node = node.value
        if isinstance(node, dict):
            return {
                self._key(key, *self._place(node, "key", key, (line, column))): self.convert(
                    value, *self._place(node, "key", key)
                )
                for key, value in node.items()
            }
        if isinstance(node, list):
            return [self.convert(item, *self._place(node, "item", at)) for at, item in enumerate(node)]
        if type(node).__name__ == "ScalarBoolean":
            return bool(node)
        if isinstance(node, bool) or node is None:
            return node
        for plain in (int, float, str):
            if isinstance(node, plain):
                return self._scalar(plain(node), line, column)
        if type(node).__name__ in ("TimeStamp", "date", "datetime"):
            return str(node)
        raise self._wrong(f"holds a {type(node).__name__}, which has no meaning here", line, column)

    def _scalar(self, value: Any, line: int | None, column: int | None) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            raise self._wrong(f"{value} is not a number that JSON can hold", line, column)
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise self._wrong("a whole number here has at most 64 bits", line, column)
        if isinstance(value, str) and not value.isascii():
            try:  # YAML's escapes can write one character as two surrogates, as JSON does
                return value.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                raise self._wrong("holds half of a surrogate pair", line, column) from None
        return value

    def _key(self, key: Any, line: int | None, column: int | None) -> Any:
        if type(key).__name__ in ("CommentedKeyMap", "CommentedKeySeq"):  # `{{ x }}` without quotes
            said = "a mapping or list is no key: a text that begins with {{ stands in quotes"
            raise self._wrong(said, line, column)
        return self.convert(key, line, column) if isinstance(key, str | int | float | bool) else str(key)

    def _wrong(self, message: str, line: int | None, column: int | None) -> RecipeError:
        return RecipeError([Problem(message, self.path, line, column)])

    @staticmethod
    def _place(
        node: Any, kind: str, at: Any, otherwise: tuple[int | None, int | None] = (None, None)
    ) -> tuple[int | None, int | None]:
        try:
            line, column = getattr(node.lc, kind)(at)
        except (AttributeError, KeyError, TypeError):
            return otherwise
        return line + 1, column + 1


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """`did you mean 'x'?`, where something known is near; else what there is, where that is short."""
    names = sorted(known)
    if name.endswith(":") and name[:-1] in names:  # `{path:}`, which YAML reads as one word
        return f"a space and a value belong behind the colon: `{name} ...`"
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are: {', '.join(names)}" if names and len(names) <= 40 else None


_REMEDIES = {
    r"found character '\\t'": "YAML is indented by spaces alone: put them in place of the tab",
    r"expected <block end>": "see that this line is indented as those that it belongs to",
    r"mapping values are not allowed": "is a quote not closed, or a text with a colon not in quotes?",
    r"expected '<document start>'": "a file holds one mapping, and nothing behind it",
}


def _remedy(what: str, line: str) -> str | None:
    """What helps against an error of YAML on this line, where that is likely to be known."""
    if re.search(r"[:-]\s+\{\{", line):
        return "a text that begins with {{ stands in quotes"
    return next((hint for pattern, hint in _REMEDIES.items() if re.search(pattern, what)), None)


def _line_of_day(text: str) -> int | None:
    """The line of the first day that no calendar has: of those the parser tells no place."""
    for number, line in enumerate(text.splitlines(), 1):
        for year, month, day in re.findall(r"\b(\d{4})-(\d\d?)-(\d\d?)\b", line):
            try:
                date(int(year), int(month), int(day))
            except ValueError:
                return number
    return None


def _nearby(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"the folder {path.parent} does not exist either" if not path.parent.exists() else None
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.with_name(near[0])}?" if near else None


def _utf8_hint() -> str:
    return "convert it, for example with: iconv -f latin1 -t utf-8"
