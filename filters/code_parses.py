"""Does the code in the text parse?"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from synthgen import Measurement, Record, abstain, filter
from synthgen.filters.valid_json import NotJson, parsed

FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\n]*)$", re.MULTILINE)
NAME = re.compile(r"\{?\s*\.?([A-Za-z0-9+#_-]+)")
SIGN = re.compile(r"[(\[{]|[)\]}]")
REPORTED = 5
QUOTED = 200
# What is longer or deeper is not judged, as there is text for which most parsers take minutes.
QUICK = ("python", "json", "jsonl")
LONGEST_QUICK = 200_000
LONGEST = 20_000
LONGEST_ALL = 60_000
DEEPEST = 200

# By the names that code blocks give them; what has a grammar: its module and how that names it.
NAMES = {
    name: language
    for language, names in {
        "python": "python py python3 py3 pycon python-console doctest",
        "json": "json",
        "jsonl": "jsonl ndjson",
        "yaml": "yaml yml",
        "toml": "toml",
        "xml": "xml svg",
        "bash": "bash sh shell zsh",
        "c": "c h",
        "cpp": "cpp c++ cc cxx hpp",
        "csharp": "csharp c# cs",
        "css": "css",
        "go": "go golang",
        "html": "html htm",
        "java": "java",
        "javascript": "javascript js jsx mjs node",
        "php": "php",
        "ruby": "ruby rb",
        "rust": "rust rs",
        "swift": "swift",
        "typescript": "typescript ts",
        "tsx": "tsx",
    }.items()
    for name in names.split()
}
GRAMMARS = {
    "bash": "tree_sitter_bash:language",
    "c": "tree_sitter_c:language",
    "cpp": "tree_sitter_cpp:language",
    "csharp": "tree_sitter_c_sharp:language",
    "css": "tree_sitter_css:language",
    "go": "tree_sitter_go:language",
    "html": "tree_sitter_html:language",
    "java": "tree_sitter_java:language",
    "javascript": "tree_sitter_javascript:language",
    "php": "tree_sitter_php:language_php",
    "php without a tag": "tree_sitter_php:language_php_only",
    "ruby": "tree_sitter_ruby:language",
    "rust": "tree_sitter_rust:language",
    "swift": "tree_sitter_swift:language",
    "tsx": "tree_sitter_typescript:language_tsx",
    "typescript": "tree_sitter_typescript:language_typescript",
}
# Where a part of a program stands that does not parse by itself.
IN_FUNCTION, IN_STRUCT, IN_CLASS = ("void _() {\n", "\n}"), ("struct _ {\n", "\n};"), ("class _ {\n", "\n}")
WITHIN = {
    "c": [IN_FUNCTION],
    "cpp": [IN_FUNCTION, IN_STRUCT],
    "csharp": [IN_CLASS],
    "java": [IN_CLASS],
    "javascript": [IN_CLASS],
    "php without a tag": [IN_CLASS],
    "tsx": [IN_CLASS],
    "typescript": [IN_CLASS],
}
# Statements that would pass for members of a class (`const = 3`).
NO_MEMBERS = frozenset(
    b"break case catch const continue do else export for function if import let return switch throw try var "
    b"while with".split()
)
PLACEHOLDER = re.compile(r"<[A-Za-z][^<>\n|&;(){}$`]{0,60}>")
# What IPython takes beside Python: `%magic`, `!command`, `x = !command`, `?help`, `help?`.
IPYTHON = re.compile(
    r"^[ \t]*(?:(?:[A-Za-z_][\w, ]{0,80}=[ \t]*)?(?:%{1,2}[A-Za-z]|!{1,2}[ \t]*[\w./~{$\"'])"
    r"(?:[^\n]*\\\n)*[^\n]*"
    r"|\?{1,2}[\w.]+[ \t]*|[A-Za-z_][\w.]{0,80}\?{1,2}[ \t]*)$",
    re.MULTILINE,
)
CELL = re.compile(r"\s*%%(?!time|capture|prun)[A-Za-z!]")
HEADER = re.compile(r"[ \t]*(?:(?:async[ \t]+)?def\b|class\b|\)).*:[ \t]*(?:#.*)?\Z")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with code, and at which of its lines, from 1."""

    reason: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of code, what it says it is in, and the line of the text that it begins at, from 1."""

    language: str
    code: str
    line: int


@filter(min=1)
class code_parses:
    """The share of the text's code blocks that parse in the language they name, from 0 to 1.

    Python is parsed by Python itself, also in sessions with `>>>`; JSON, JSON lines, YAML, TOML and XML by
    their own parsers; Bash, C, C++, C#, CSS, Go, HTML, Java, JavaScript, PHP, Ruby, Rust, Swift, TypeScript
    by tree-sitter. Nothing is run. A part of a program (a method, a few statements, some elements) parses,
    also what has to stand in a function or class. So do the `%` and `!` lines of IPython, placeholders such
    as `<package>` in shell commands, and functions of which a comment is the body. The detail says which
    blocks do not parse, where and why.

    Abstains, and says why, where there is no code block, or none in a language that it knows. A block without
    a language counts neither way, nor does one that is too long or deep to be judged: of more than 20,000
    characters (of Python and JSON 200,000), or with brackets in brackets 200 times.

    Parameters:
        language: the whole text is code in this language, without fences.

    Source: the fenced code blocks of CommonMark 0.31; the grammars of Python's `ast`, tomllib, expat,
    ruamel.yaml and tree-sitter. Takes the extra `code`.

    Weak at: code that parses and does nothing of use; Python of another version than the one that runs this;
    C and C++ that lean on macros; shell commands after a prompt (`$ ls`), which parse as others; HTML,
    whose grammar takes nearly everything. SQL is not judged, as no grammar takes all of its dialects.

    Examples:
        "```python\\nprint('hello')\\n```" -> 1
        "```python\\nprint 'hello'\\n```" -> 0
        "```json\\n{}\\n```\\nor\\n```json\\n{,}\\n```" -> 0.5
        "No code." -> None
    """

    def __init__(self, *, language: str | None = None) -> None:
        self.language = None if language is None else NAMES.get(language.lower())
        if language is not None and self.language is None:
            raise ValueError(
                f"unknown language {language!r}: there are {', '.join(sorted(set(NAMES.values())))}"
            )
        try:
            import_module("tree_sitter")
            for grammar in GRAMMARS.values():
                import_module(grammar.partition(":")[0])
        except ImportError as error:
            raise ValueError(
                f"code_parses needs grammars ({error.name}): install synthgen-data[code]"
            ) from None

    def measure(self, record: Record) -> Measurement:
        """The share, with what does not parse."""
        text = record.text
        blocks = _blocks(text) if self.language is None else [Block(self.language, text, 1)]
        judged, faults, unjudged = 0, [], Counter[str]()
        left = LONGEST_ALL
        for block in blocks:
            language = NAMES.get(block.language)
            if language is None:
                unjudged[block.language[:40] or "no language"] += 1
                continue
            if language == "python" and CELL.match(block.code):
                unjudged["a cell in another language"] += 1
                continue
            size = len(block.code)
            if language in QUICK:
                judge = size <= LONGEST_QUICK
            else:
                judge = size <= min(LONGEST, left) and not _deep(block.code)
                left -= size if judge else 0
            if not judge:
                unjudged["too long or deep"] += 1
                continue
            judged += 1
            if (fault := _fault(language, block.code)) is not None:
                faults.append((block, language, fault))
        if not judged:
            return abstain(_why(unjudged))
        detail: dict[str, Any] = {"blocks": judged}
        if unjudged:
            detail["not_judged"] = dict(unjudged.most_common(REPORTED))
        if faults:
            detail["faults"] = [_reported(*each) for each in faults[:REPORTED]]
        return Measurement((judged - len(faults)) / judged, detail)


def _why(unjudged: Counter[str]) -> str:
    if not unjudged:
        return "there is no code block"
    found = ", ".join(name for name, _ in unjudged.most_common(REPORTED))
    return f"no code block can be judged: {found}"


def _reported(block: Block, language: str, fault: Fault) -> dict[str, Any]:
    said: dict[str, Any] = {"language": language, "reason": fault.reason[:QUOTED]}
    if fault.line is not None:
        said["line"] = block.line + fault.line - 1
    return said


def _blocks(text: str) -> Iterator[Block]:
    """The fenced code blocks; one that is never closed goes on to the end."""
    opened: re.Match[str] | None = None
    line, counted = 1, 0
    for match in FENCE.finditer(text):
        fence, info = match.groups()
        if opened is None:
            if "`" not in info or fence[0] == "~":
                opened = match
        elif fence[0] == opened[1][0] and len(fence) >= len(opened[1]) and not info.strip():
            line, counted = line + text.count("\n", counted, opened.end() + 1), opened.end() + 1
            yield Block(
                _language(opened[2]), text[opened.end() + 1 : max(match.start(), opened.end() + 1)], line
            )
            opened = None
    if opened is not None:
        line += text.count("\n", counted, opened.end() + 1)
        yield Block(_language(opened[2]), text[opened.end() + 1 :], line)


def _language(info: str) -> str:
    match = NAME.match(info)
    return match[1].lower() if match else ""


def _deep(code: str) -> bool:
    if code.count("(") + code.count("[") + code.count("{") <= DEEPEST:
        return False
    depth = 0
    for match in SIGN.finditer(code):
        depth = max(depth + (1 if match[0] in "([{" else -1), 0)
        if depth > DEEPEST:
            return True
    return False


def _fault(language: str, code: str) -> Fault | None:
    if language in PARSERS:
        return PARSERS[language](code)
    if language == "php" and "<?" not in code:
        language = "php without a tag"
    fault = _tree_sitter(language, code)
    if fault is None:
        return None
    if language == "bash":
        named = PLACEHOLDER.sub(lambda match: "_" * len(match[0]), code)
        return fault if named == code or _tree_sitter(language, named) is not None else None
    dialects = [language, "tsx"] if language == "typescript" else [language]
    if language == "typescript" and _tree_sitter("tsx", code) is None:
        return None
    parts = ((dialect, *ends) for dialect in dialects for ends in WITHIN.get(dialect, ()))
    return None if any(_parses_within(*part, code) for part in parts) else fault


def _parses_within(language: str, before: str, after: str, code: str) -> bool:
    root = _tree(language, before + code + after).root_node
    whole = [child for child in root.named_children if child.type != "comment"]
    if root.has_error or len(whole) != 1:  # what closes the part and opens another is none
        return False
    body = whole[0].child_by_field_name("body")
    names = [
        child.child_by_field_name("name") or child.child_by_field_name("property") for child in body.children
    ]
    return not any(name is not None and name.text in NO_MEMBERS for name in names)


def _python(code: str) -> Fault | None:
    code = textwrap.dedent(code)
    if not code.lstrip().startswith(">>>"):
        return _parsed_python(code)
    for line, source in _session(code):
        if (fault := _parsed_python(source)) is not None:
            return Fault(fault.reason, line + (fault.line or 1) - 1)
    return None


def _parsed_python(source: str) -> Fault | None:
    fault = _plain_python(source)
    if fault is None or fault.line is None:
        return fault
    said = _with_bodies(IPYTHON.sub(_passed, source))
    return fault if said == source else _plain_python(said)


def _passed(match: re.Match[str]) -> str:
    line = match[0]
    return line[: len(line) - len(line.lstrip(" \t"))] + "pass" + "\n" * line.count("\n")


def _with_bodies(source: str) -> str:
    """Where a comment is all that a function or class has, `pass` instead."""
    lines = source.split("\n")
    header, comment = "", -1
    for number, line in enumerate([*lines, "end"]):
        said = line.strip()
        if header and (not said or said.startswith("#")):
            if said and comment < 0 and _indent(line) > _indent(header):
                comment = number
            continue
        if comment >= 0 and _indent(line) <= _indent(header):
            lines[comment] = lines[comment][: _indent(lines[comment])] + "pass"
        header, comment = line if HEADER.match(line) else "", -1
    return "\n".join(lines)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _plain_python(source: str) -> Fault | None:
    try:
        with warnings.catch_warnings():  # of escapes and the like, which are no errors
            warnings.simplefilter("ignore")
            ast.parse(source)
    except SyntaxError as error:
        return Fault(error.msg, error.lineno)
    except ValueError as error:  # NULs and lone surrogates
        return Fault(str(error))
    except (RecursionError, MemoryError):
        return Fault("nests too deep")
    return None


def _session(code: str) -> Iterator[tuple[int, str]]:
    """What was typed in an interactive session, one input after the other, with its line."""
    source, start = "", 0
    for number, line in enumerate(code.splitlines(), 1):
        said = line.lstrip()
        if source and (said.startswith("... ") or said == "..."):
            source += said[4:] + "\n"
            continue
        if source:
            yield start, source
            source = ""
        if said.startswith(">>>"):
            source, start = said[4:] + "\n", number
    if source:
        yield start, source


def _json(code: str) -> Fault | None:
    try:
        parsed(code)
    except NotJson as error:
        return Fault(str(error), error.line)
    return None


def _json_lines(code: str) -> Fault | None:
    for number, line in enumerate(code.split("\n"), 1):
        if line.strip() and (fault := _json(line)) is not None:
            return Fault(fault.reason, number)
    return None


def _yaml(code: str) -> Fault | None:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        for _ in YAML().parse(textwrap.dedent(code)):
            pass
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return Fault(error.problem or "no YAML", mark.line + 1 if mark is not None else None)
    except YAMLError as error:
        return Fault(str(error).partition("\n")[0])
    return None


def _toml(code: str) -> Fault | None:
    import tomllib

    try:
        tomllib.loads(code)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at (?:line (\d+).*|end of document)\)\Z", str(error))
        line = int(place[1]) if place and place[1] else None
        return Fault(str(error)[: place.start()] if place else str(error), line)
    except RecursionError:
        return Fault("nests too deep")
    return None


def _xml(code: str) -> Fault | None:
    from xml.parsers import expat

    parser = expat.ParserCreate()
    # A part of a document, of several elements or none, stands within one of ours.
    whole = code.lstrip().startswith(("<?xml", "<!DOCTYPE"))
    wrapped = code.strip() if whole else f"<_>{code}</_>"
    try:
        parser.Parse(wrapped.encode(errors="replace"), True)
    except expat.ExpatError as error:
        before = code[: len(code) - len(code.lstrip())].count("\n") if whole else 0
        return Fault(expat.ErrorString(error.code), before + error.lineno)
    return None


def _tree(language: str, code: str) -> Any:
    return _parser(language).parse(f"{code}\n".encode(errors="replace"))  # in Go lines end statements


def _tree_sitter(language: str, code: str) -> Fault | None:
    node = _tree(language, code).root_node
    if not node.has_error:
        return None
    while not (node.is_error or node.is_missing):
        inner = next((child for child in node.children if child.has_error or child.is_missing), None)
        if inner is None:
            break
        node = inner
    reason = f"{node.type} is missing" if node.is_missing else "does not parse"
    return Fault(reason, node.start_point[0] + 1)


@cache
def _parser(language: str) -> Any:
    from tree_sitter import Language, Parser

    module, _, function = GRAMMARS[language].partition(":")
    return Parser(Language(getattr(import_module(module), function)()))


PARSERS: dict[str, Callable[[str], Fault | None]] = {
    "python": _python,
    "json": _json,
    "jsonl": _json_lines,
    "yaml": _yaml,
    "toml": _toml,
    "xml": _xml,
}
