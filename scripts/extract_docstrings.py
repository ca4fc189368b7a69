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

# A small model answers best from a few complete sentences.
MIN_WORDS, MAX_WORDS = 25, 75

# Chosen by reading: each explains something by itself. The order is that of the file, and a recipe with few tasks
# takes the first rows, so neighbours come from different modules.
PICKED = """
    heapq threading.Semaphore textwrap.dedent calendar tempfile.mkdtemp statistics.harmonic_mean
    difflib.Differ fractions.Fraction html.escape logging.Handler collections.ChainMap secrets.token_hex
    pathlib.PurePath.with_suffix queue.Queue.join gzip.GzipFile operator.length_hint random.Random.sample
    gettext configparser functools.singledispatch mimetypes.MimeTypes json.decoder.JSONDecoder.raw_decode
    abc.abstractmethod base64.urlsafe_b64encode bz2.BZ2File platform posixpath.join asyncio.streams.StreamReader.readexactly
    ast.literal_eval http.cookies.Morsel

    threading.RLock statistics.median_low tarfile.TarFile.getmember inspect.getsource sched
    os.makedirs zipfile.ZipFile.extractall locale.format_string subprocess.check_output traceback.format_list
    email.utils.parseaddr pstats.Stats.get_stats_profile ssl.get_server_certificate symtable.Symbol.is_namespace
    importlib.import_module logging.Filter.filter cmd.Cmd email.message.Message.get_filename
    textwrap.indent fnmatch glob.iglob pickle.UnpicklingError compileall doctest.DocTestFinder
    threading.Event statistics.correlation http.cookies.SimpleCookie difflib.HtmlDiff enum.property
    random.Random.expovariate pathlib.Path.absolute telnetlib.Telnet.read_until mimetypes.guess_extension

    functools.lru_cache tokenize.untokenize asyncio.locks.Semaphore ssl.SSLObject selectors.BaseSelector
    codecs.IncrementalEncoder collections.Counter.subtract threading.Barrier logging.handlers.MemoryHandler
    graphlib.TopologicalSorter.prepare shutil.move statistics.geometric_mean base64.standard_b64decode
    calendar.Calendar.yeardatescalendar concurrent.futures._base.Executor.shutdown inspect.getdoc re.findall
    email.message.Message.keys tempfile asyncio.queues.Queue pdb.Pdb.do_disable xml.sax.handler.ErrorHandler
    configparser.DuplicateSectionError os.renames subprocess.check_call runpy fileinput.nextfile
    random.Random.lognormvariate textwrap.fill threading.Thread.start bisect.insort_left pydoc

    sysconfig.get_platform fileinput.lineno statistics.NormalDist.quantiles urllib.parse.urldefrag
    logging.LogRecord asyncio.locks.Lock.release multiprocessing.shared_memory.ShareableList pathlib.PurePath
    operator.itemgetter re.split dis.dis html.unescape queue.Queue.task_done email.utils.format_datetime
    traceback.walk_stack threading.Thread.daemon statistics.NormalDist.overlap
    logging.handlers.SocketHandler threading.Condition.notify email.charset.Charset wsgiref.simple_server
    statistics.fmean http.client.HTTPResponse.geturl logging.handlers.TimedRotatingFileHandler argparse.Action
    asyncio.base_events.BaseEventLoop.call_soon random.Random tarfile.TarFile.extractfile pyclbr
    threading.enumerate logging.NullHandler asyncio.tasks.wait_for heapq.merge locale.setlocale
    statistics.NormalDist.inv_cdf logging.handlers.QueueHandler bdb.Bdb numbers.Real
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


def docstrings(tree: ast.Module, prefix: str) -> Iterator[tuple[str, str]]:
    """Every docstring of a module under its dotted name."""

    def walk(
        node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
    ) -> Iterator[tuple[str, str]]:
        if doc := ast.get_docstring(node):
            yield name, doc
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for child in node.body:
                if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield from walk(child, f"{name}.{child.name}")

    yield from walk(tree, prefix)


def prose(doc: str) -> str:
    """The leading paragraphs of a docstring as plain text: whole sentences, MAX_WORDS at most."""
    kept: list[str] = []
    for paragraph in re.split(r"\n\s*\n", doc):
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
    text: list[str] = []
    for sentence in _SENTENCE_END.split(" ".join(kept)):
        if text and len(" ".join([*text, sentence]).split()) > MAX_WORDS:
            break
        text.append(sentence)
    return " ".join(text)


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
    module, path = source_file(library, name)
    found = dict(docstrings(ast.parse(path.read_text(encoding="utf-8")), module))
    if name not in found:
        raise LookupError(f"{name}: no docstring")
    text = prose(found[name])
    if not MIN_WORDS <= len(text.split()) <= MAX_WORDS:
        raise LookupError(f"{name}: {len(text.split())} words of prose")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {
        "title": name,
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
