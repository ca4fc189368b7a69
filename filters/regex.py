"""How often does a pattern match?"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from synthgen import Measurement, Record, filter

QUOTES = 3
QUOTED = 200
# Each match may read the rest of the text once, so that very many in a very long text would take for ever.
READING = 10**9


def compiled(pattern: str, ignore_case: bool = False) -> Any:
    """The pattern, ready to match bytes. Raises ValueError with what RE2 says of a wrong one."""
    import re2

    options = re2.Options()
    options.case_sensitive = not ignore_case
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        said = error.args[0]
        raise ValueError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from None


def _checked(pattern: str) -> str:
    compiled(pattern)
    return pattern


@filter(max=0)
class regex:
    r"""How many times a regular expression matches, one match after the other.

    The expression is in RE2's syntax, which is that of Python's `re` without look-around and references back
    (and with `\z`, not `\Z`, for the end). `(?i)` ignores case, `(?m)` makes `^` and `$` match at lines,
    `(?s)` makes `.` match line breaks. The detail quotes the first matches and says where they begin.

    No text takes an expression more than seconds: of a text of a megabyte only the first 1,000 matches are
    counted, of 100 kilobytes 10,000, and so on, and the detail then has `at_least: true`.

    Parameters:
        pattern: the expression. In YAML it stands in single quotes, where a backslash is a backslash.
        ignore_case: whether capitals and small letters are the same.

    Source: RE2 (https://github.com/google/re2/wiki/Syntax), through google-re2. `\d`, `\w`, `\s` and `\b` are
    those of ASCII; `\p{L}` and `\p{N}` are letters and digits of any script.

    Weak at: whatever a regular expression cannot tell. A half of a surrogate pair counts as U+FFFD.

    For example, `\d+` measures 2 in "1 and 22".
    """

    def __init__(
        self, *, pattern: Annotated[str, AfterValidator(_checked)], ignore_case: bool = False
    ) -> None:
        self.pattern = compiled(pattern, ignore_case)

    def measure(self, record: Record) -> Measurement:
        """How many matches, with the first ones."""
        data = _utf8(record.text)
        most = max(READING // max(len(data), 1), 1)
        count, spans, last = 0, [], (-1, -1)
        for match in self.pattern.finditer(data):
            start, end = match.span()
            within_character = start == end < len(data) and data[start] & 0xC0 == 0x80
            if within_character or (start, end) == last:  # re2 gives some empty matches twice
                continue
            last = start, end
            count += 1
            if count <= QUOTES:
                spans.append((start, end))
            if count == most:
                break
        if not count:
            return Measurement(0.0)
        detail: dict[str, Any] = {
            "first": [_quoted(data[start:end]) for start, end in spans],
            "at": [len(data[:start].decode()) for start, _ in spans],
        }
        if count == most:
            detail["at_least"] = True
        return Measurement(float(count), detail)


def _quoted(found: bytes) -> str:
    return found[: 4 * QUOTED].decode(errors="ignore")[:QUOTED]


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # lone surrogates
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
