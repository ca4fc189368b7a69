"""How often a text says again what it has said."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GRAM = 16  # characters that have to be the same for two places to count as a repeat
LONG = 2 * GRAM  # characters that a repeat has to run on for; shorter ones are phrases

# A run of four and more of these signs and spaces, from its first sign on.
RULE = re.compile(
    r"[SIGN](?:(?=[SIGN\s]{3})|(?<=\s.)(?=[SIGN\s]{2})|(?<=\s\s.)(?=[SIGN\s])|(?<=\s\s\s.))[SIGN\s]*".replace(
        "SIGN", r"-=_*#~.│─|+:\\"
    )
)
MARKER = re.compile(r"\n[ \t]*(?:\d{1,9}[.)]|[-*+•])[ \t]+")
# Of a long number, which may well repeat its digits, the first 16 are looked at.
NUMBER = re.compile(r"\b((?:0x[0-9A-Fa-f]|0b[01]|[0-9])[0-9A-Fa-f_]{15})[0-9A-Fa-f_]{1,128}\b")

LINE_OF_VERSE = 60  # characters; it is rarely longer


def repetition(text: str, prose: str) -> tuple[float, float]:
    """The measures of loops and of repeats. Tables, code and verses repeat by nature, and count half."""
    length, looped, repeated = _repeated(text)
    if (looped or repeated) and NUMBER.search(text):
        text, prose = NUMBER.sub(r"\1", text), NUMBER.sub(r"\1", prose)
        length, looped, repeated = _repeated(text)
    if not length:
        return 1.0, 1.0
    in_prose = repeated
    if repeated and _verse(prose):
        in_prose = 0
    elif len(prose) != len(text):
        in_prose = min(repeated, _repeated(prose)[2])
    share = (in_prose + (repeated - in_prose) / 2) / length
    refrain = max(0, looped - LONG)
    return max(0.0, 1 - 2 * refrain / length), max(0.0, 1 - share)


def _verse(text: str) -> bool:
    """Whether it is in short lines that begin with capitals, and few of which end a sentence."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) < 4 or max(map(len, lines)) > LINE_OF_VERSE:
        return False
    capitals = sum(line.lstrip("\"'“‘(¿¡")[:1].isupper() for line in lines)  # noqa: RUF001
    ends = sum(line[-1] in ".!?:" for line in lines)
    words = sum(line.count(" ") + 1 for line in lines)
    return capitals >= 0.9 * len(lines) and ends <= len(lines) / 2 and words >= 3 * len(lines)


def _repeated(text: str) -> tuple[int, int, int]:
    """Characters of the text, how many of them are in loops, and how many in repeats, whatever the script."""
    import numpy as np

    plain = " ".join(RULE.sub(" ", MARKER.sub("\n", f"\n{text}")[1:]).split())
    if len(plain) < LONG:
        return len(plain), 0, 0
    grams = _grams(plain)
    # Sorted by gram and then by place, which is in the lowest bits.
    bits = np.uint64(len(grams).bit_length())
    grams <<= bits
    grams |= np.arange(len(grams), dtype=np.uint64)
    grams.sort()
    same = np.flatnonzero((grams[1:] ^ grams[:-1]) >> bits == 0)
    if not len(same):
        return len(plain), 0, 0
    places = (grams & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    again = places[same + 1]
    distances = again - places[same]
    if len(again) <= LONG - GRAM and distances.min() >= GRAM:  # neither long enough nor near enough to count
        return len(plain), 0, 0
    # How far back each gram was last seen, 0 if never. The first never was, and one that never was ends it.
    back = np.zeros(len(grams) + 1, np.int64)
    back[again] = distances

    seen = back > 0
    edges = np.flatnonzero(seen[1:] != seen[:-1])
    lengths = edges[1::2] - edges[::2] + GRAM - 1
    repeated = int(lengths[lengths >= LONG].sum())

    steps = np.flatnonzero(back[1:] != back[:-1]) + 1
    period = back[steps[:-1]]
    reach = steps[1:] - steps[:-1] + GRAM - 1
    loop = (period > 0) & (reach >= 2 * period)
    return len(plain), min(len(plain), int((reach - period)[loop].sum())), min(len(plain), repeated)


def _grams(plain: str) -> NDArray[np.uint64]:
    """A hash of the 16 characters from each place on."""
    import numpy as np

    if plain.isascii():
        size, data = 1, plain.encode()
    else:
        size, data = 4, plain.encode("utf-32-le", errors="surrogatepass")
    width = 8 // size  # as many characters as a number holds: 8 or 2
    grams = np.ndarray(len(plain) - width + 1, "<u8", data, strides=size)
    while width < GRAM:  # hashes of 4, 8, 16 characters
        grams = (grams[:-width] * np.uint64(0x9E3779B97F4A7C15)) ^ (
            grams[width:] * np.uint64(0xC2B2AE3D27D4EB4F)
        )
        grams ^= grams >> np.uint64(29)
        width *= 2
    return grams
