"""Writes recipes/data/python_docs.jsonl: short documents from the docstrings of Python's standard library.

    python3.11 scripts/extract_docstrings.py

The sources are parsed and never imported, so the result depends on the Python release alone.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

LICENCE = "PSF-2.0"
DEFAULT_OUT = Path(__file__).resolve().parent.parent / "recipes" / "data" / "python_docs.jsonl"

# A small model keeps to a text of two sentences, and drifts from the third on.
SENTENCES = 2
MIN_WORDS, MAX_WORDS = 12, 50

# Chosen by reading: each explains something by itself. The order is that of the file, and a recipe with few tasks
# takes the first rows, so neighbours come from different modules. A leading minus drops a headline that is no sentence.
PICKED = """
    threading.Semaphore textwrap.dedent statistics.median_low secrets.token_hex -gettext shutil.move
    difflib.Differ collections.ChainMap queue.Queue.join tempfile.mkdtemp -configparser html.escape gzip.GzipFile
    random.Random.sample pathlib.PurePath.with_suffix tarfile.TarFile.getmember -functools.singledispatch
    operator.length_hint logging.handlers.MemoryHandler re.findall statistics.harmonic_mean -mimetypes.MimeTypes
    json.decoder.JSONDecoder.raw_decode base64.urlsafe_b64encode abc.abstractmethod fractions.Fraction
    email.utils.parseaddr platform posixpath.join bz2.BZ2File inspect.getsource

    threading.RLock asyncio.streams.StreamReader.readexactly http.cookies.Morsel statistics.fmean
    zipfile.ZipFile.extractall locale.format_string subprocess.check_output textwrap.indent
    pstats.Stats.get_stats_profile ssl.get_server_certificate symtable.Symbol.is_namespace
    importlib.import_module logging.Filter.filter cmd.Cmd email.message.Message.get_filename ast.literal_eval
    glob.iglob pickle.UnpicklingError compileall doctest.DocTestFinder traceback.format_list
    -threading.Event -statistics.correlation http.cookies.SimpleCookie -difflib.HtmlDiff enum.property
    pathlib.Path.absolute telnetlib.Telnet.read_until mimetypes.guess_extension

    -functools.lru_cache tokenize.untokenize ssl.SSLObject -selectors.BaseSelector
    codecs.IncrementalEncoder collections.Counter.subtract threading.Barrier threading.current_thread
    graphlib.TopologicalSorter.prepare statistics.geometric_mean base64.standard_b64decode textwrap.fill
    calendar.Calendar.yeardatescalendar inspect.getdoc
    email.message.Message.keys -tempfile asyncio.queues.Queue statistics.median_high
    configparser.DuplicateSectionError os.renames -runpy
    random.Random.lognormvariate threading.Thread.start bisect.insort_left pydoc asyncio.locks.Event.set

    sysconfig.get_platform fileinput.lineno statistics.NormalDist.quantiles urllib.parse.urldefrag
    logging.LogRecord asyncio.locks.Lock.release pathlib.PurePath
    re.split dis.dis html.unescape queue.Queue.task_done email.utils.format_datetime bz2.BZ2File.write
    threading.Thread.daemon statistics.NormalDist.overlap
    logging.handlers.SocketHandler threading.Condition.notify email.charset.Charset pathlib.Path.rename
    http.client.HTTPResponse.geturl logging.handlers.TimedRotatingFileHandler argparse.Action
    asyncio.base_events.BaseEventLoop.call_soon tarfile.TarFile.extractfile pyclbr tarfile.TarFile.list
    threading.enumerate logging.NullHandler asyncio.tasks.wait_for heapq.merge locale.setlocale
    logging.handlers.QueueHandler -bdb.Bdb logging.handlers.BufferingHandler configparser.RawConfigParser.write
""".split()

_MARKUP = (
    (re.compile(r":\w+:`~?([^`]+)`"), r"\1"),
    (re.compile(r"``([^`]+)``"), r"\1"),
    (re.compile(r"`([^`']+)[`']"), r"\1"),
    (re.compile(r"(?<!\w)\*(\w+)\*(?!\w)"), r"\1"),
)
_SIGNATURE = re.compile(r"^[\w.]+\([^)]*\)(\s*->.*)?$")
_NOT_PROSE = re.compile(r"^\s*(>>>|\.\.\.|\.\. |[-=*]|\d+[.)]|@|:\w+)|\n[ \t]+\S|\s--\s", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z'\"])")

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings(node: Documented, name: str, kind: str = "module") -> Iterator[tuple[str, tuple[str, str]]]:
    """Every docstring of a module under its dotted name, with the kind of what it documents."""
    if doc := ast.get_docstring(node):
        yield name, (kind, doc)
    if isinstance(node, (ast.Module, ast.ClassDef)):
        for child in node.body:
            if isinstance(child, ast.ClassDef):
                yield from docstrings(child, f"{name}.{child.name}", "class")
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                own = "method" if isinstance(node, ast.ClassDef) else "function"
                yield from docstrings(child, f"{name}.{child.name}", own)


def prose(doc: str, *, headline: bool) -> str:
    """The leading paragraphs of a docstring as plain text: the first sentences."""
    kept: list[str] = []
    paragraphs = re.split(r"\n\s*\n", doc)
    for paragraph in paragraphs if headline else paragraphs[1:]:
        line = " ".join(paragraph.split())
        if _SIGNATURE.match(line):
            continue
        # Stop, rather than skip: what follows a list or an example often speaks about it.
        if _NOT_PROSE.search(paragraph) or line.endswith(":"):
            break
        for pattern, plain in _MARKUP:
            line = pattern.sub(plain, line)
        # A headline without a full stop would run into the next sentence.
        kept.append(line if line.endswith((".", "!", "?", ")")) else f"{line}.")
    return " ".join(_SENTENCE_END.split(" ".join(kept))[:SENTENCES])


def source_file(library: Path, name: str) -> tuple[str, Path]:
    """The module that a dotted name lies in, and its file."""
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        path = library.joinpath(*parts[:size])
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return ".".join(parts[:size]), candidate
    raise LookupError(f"{name}: no such module in {library}")


def document(library: Path, name: str) -> dict[str, str]:
    """The row for one name; LookupError where it has no docstring of a fitting length."""
    headline, name = not name.startswith("-"), name.removeprefix("-")
    module, path = source_file(library, name)
    found = dict(docstrings(ast.parse(path.read_text(encoding="utf-8")), module))
    if name not in found:
        raise LookupError(f"{name}: no docstring")
    kind, doc = found[name]
    text = prose(doc, headline=headline)
    if not MIN_WORDS <= len(text.split()) <= MAX_WORDS:
        raise LookupError(f"{name}: {len(text.split())} words of prose")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {
        "title": name,
        "subject": f"The {kind} {'.'.join(name.split('.')[-2:]) if kind == 'method' else name}",
        "text": text,
        "source": f"Python {version} standard library, {path.relative_to(library).as_posix()}",
        "licence": LICENCE,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, default=DEFAULT_OUT)
    output: Path = parser.parse_args().output
    library = Path(sysconfig.get_path("stdlib"))
    rows: list[dict[str, str]] = []
    missing: list[str] = []
    for name in PICKED:
        try:
            rows.append(document(library, name))
        except LookupError as error:
            missing.append(str(error))
    if missing:
        print("\n".join(missing), file=sys.stderr)
        return 1
    output.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} documents in {output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
