"""Documents: the text of Markdown, HTML and PDF files, with where headings, blocks and pages begin in it."""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

MAX_BYTES = 64_000_000
MAX_TEXT = 64_000_000  # characters: a compressed file can hold far more than its size says
PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
SPACE = re.compile(r"\s+")
BLOCKS = frozenset(
    "address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hr html li main nav ol p pre section summary table td th tr "
    "ul".split()
)
TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]{0,40})")
CLOSE_THEMSELVES = frozenset(
    "area base body br col colgroup dd dt embed head hr html img input li link meta optgroup option p param "
    "rp rt source tbody td tfoot th thead tr track wbr".split()
)
MAX_DEPTH = 1000
SILENT = ("script", "style", "noscript", "template", "svg", "nav", "head")


class NotReadable(Exception):
    """A file that is no such document. `line` counts from 1."""

    def __init__(self, message: str, line: int = 1, hint: str | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.hint = hint


@dataclass(frozen=True)
class Document:
    """A text; `headings` (where, level, title), `blocks` and `pages` say where in it each begins."""

    text: str
    headings: Sequence[tuple[int, int, str]] = ()
    blocks: Sequence[int] = ()
    pages: Sequence[int] = field(default=())

    def heading_path(self, at: int) -> list[str]:
        """The titles of the sections that a place is in, the outermost first."""
        path: list[tuple[int, str]] = []
        for start, level, title in self.headings:
            if start > at:
                break
            path = [*(above for above in path if above[0] < level), (level, title)]
        return [title for _, title in path]

    def page(self, at: int) -> int | None:
        """The page, from 1, of a document that has pages."""
        return bisect_right(self.pages, at) if self.pages else None


def plain(text: str) -> Document:
    """A text whose blocks are parted by empty lines."""
    return Document(text, (), [match.end() for match in PARAGRAPH.finditer(text)])


def markdown(text: str) -> Document:
    """Markdown (CommonMark), as it stands."""
    from markdown_it import MarkdownIt

    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    headings, blocks = [], []
    tokens = MarkdownIt("commonmark").disable("inline").parse(text)
    for place, token in enumerate(tokens):
        if token.map is None or token.level > 2 or token.map[0] >= len(starts):
            continue
        at = starts[token.map[0]]
        if token.type == "heading_open":
            headings.append((at, int(token.tag[1:]), SPACE.sub(" ", tokens[place + 1].content)[:200]))
        blocks.append(at)
    return Document(text, headings, sorted(set(blocks)))


def html(raw: bytes) -> Document:  # noqa: PLR0912 - one walk through the tree
    """The text of an HTML page without scripts, styles and navigation. Raises NotReadable."""
    parser = _extra("selectolax.lexbor").LexborHTMLParser
    page = raw.removeprefix(b"\xef\xbb\xbf").decode()
    _not_too_deep(page)
    tree = parser(page)
    tree.strip_tags(list(SILENT))
    root = tree.body or tree.root
    pieces: list[str] = []
    size, opened = 0, ""
    headings: list[tuple[int, int, str]] = []
    blocks: list[int] = []
    node, depth = root, 0
    while node is not None:  # without recursion: a page may be nested as deeply as it likes
        tag = node.tag
        if tag == "-text":
            text = node.text_content or ""
            text = text if _in_pre(node) else SPACE.sub(" ", text)
            if opened or not pieces:
                text = text.lstrip()
            if text:
                if opened and pieces:
                    pieces.append(opened)
                    size += len(opened)
                if opened:
                    blocks.append(size)
                opened = ""
                pieces.append(text)
                size += len(text)
        elif tag == "br":
            opened = opened or "\n"
        elif tag in BLOCKS:
            opened = "\n\n"
            if re.fullmatch("h[1-6]", tag):
                title = SPACE.sub(" ", node.text()).strip()[:200]
                if title:
                    headings.append((size + (2 if pieces else 0), int(tag[1]), title))
        following = node.child if tag != "-text" else None
        if following is not None:
            depth += 1
        while following is None and depth:
            following = node.next
            if node.tag in BLOCKS:
                opened = "\n\n"
            if following is None:
                node, depth = node.parent, depth - 1
        node = following
    return Document("".join(pieces), headings, blocks)


def _not_too_deep(page: str) -> None:
    """The parser's time grows with the square of the depth. Raises NotReadable."""
    depth = 0
    for match in TAG.finditer(page):
        if match[2].lower() not in CLOSE_THEMSELVES:
            depth += -1 if match[1] else 1
            if depth > MAX_DEPTH:
                line = page.count("\n", 0, match.start()) + 1
                raise NotReadable(f"is nested more than {MAX_DEPTH:,} elements deep", line)


def _in_pre(node: Any) -> bool:
    return node.parent is not None and node.parent.tag in ("pre", "textarea")


def pdf(raw: bytes) -> Document:
    """The text of a PDF, page by page. Raises NotReadable; a page that is a picture has no text."""
    pypdf = _extra("pypdf")
    try:
        reader = pypdf.PdfReader(io.BytesIO(raw), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise NotReadable("is a PDF that asks for a password")  # noqa: TRY301
        pages: list[int] = []
        parts: list[str] = []
        size = 0
        for page in reader.pages:
            text = page.extract_text().strip().encode(errors="replace").decode()
            if parts:
                parts.append("\n\n")
                size += 2
            pages.append(size)
            parts.append(text)
            size += len(text)
            if size > MAX_TEXT:
                raise NotReadable(f"holds more than {MAX_TEXT:,} characters of text")  # noqa: TRY301
    except NotReadable:
        raise
    except Exception as error:  # on a file that is made to harm, the library raises whatever comes up
        raise NotReadable(
            f"is not a PDF that can be read: {str(error)[:200] or type(error).__name__}"
        ) from None
    text = "".join(parts)
    if not text.strip():
        raise NotReadable("holds no text; a scan needs OCR first")
    return Document(text, (), [match.end() for match in PARAGRAPH.finditer(text)], pages)


def read_document(file: Path, kind: str) -> Document:
    """The document in a file of the kind `text`, `markdown`, `html` or `pdf`. Raises NotReadable, OSError."""
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise NotReadable(f"is {size:,} bytes, and {MAX_BYTES:,} is the most for one document")
    raw = file.read_bytes()
    if kind == "pdf":
        return pdf(raw)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotReadable("is not UTF-8", raw[: error.start].count(b"\n") + 1) from None
    if kind == "html":
        return html(raw)
    return markdown(text) if kind == "markdown" else plain(text)


def reader_version(kind: str) -> str | None:
    """What reads this kind of document, with its version, where the text depends on that."""
    package = {"pdf": "pypdf", "html": "selectolax"}.get(kind)
    return f"{package} {version(package)}" if package else None


def _extra(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise NotReadable(
            f"cannot be read without {package}", hint="pip install 'synthgen-data[documents]'"
        ) from None
