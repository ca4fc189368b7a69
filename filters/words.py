"""How long a text is, in words."""

from __future__ import annotations

import re

from synthgen import Record, filter

# Han, kana and bopomofo, with their compatibility and extension blocks.
IDEOGRAPH = re.compile(
    "[\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003fffd]"
)
# Thai, Lao, Burmese and Khmer are written without spaces and have words of about four signs.
UNSPACED = re.compile("[\u0e01-\u0e4f\u0e81-\u0ecd\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u1780-\u17d3]+")
SIGNS_OF_A_WORD = 4
SPECIAL = re.compile(f"{IDEOGRAPH.pattern}|{UNSPACED.pattern}")
WORD = re.compile(r"[^\W_]\S*")
# What ASCII text loses before its words are counted: signs that make no word by themselves.
SIGNS = bytes(code for code in range(128) if not chr(code).isalnum() and not chr(code).isspace())
SEPARATORS = bytes.maketrans(b"\x1c\x1d\x1e\x1f", b"    ")  # spaces to a string, not to bytes


@filter
def words(record: Record) -> int:
    """How many words the text has.

    A word is what stands between spaces and has a letter or a digit in it; bullets and dashes are none. Each
    Chinese character and each kana counts as a word. Thai, Lao, Burmese and Khmer, whose words are not
    spaced either, count one for every four signs.

    Parameters: none. The recipe gives `min` and `max`.

    Source: what word processors count.

    Weak at: Thai and its neighbours, where the number is an estimate. Code counts as the words between its
    spaces.
    """
    text = record.text
    if text.isascii():  # the same as below, much quicker
        return len(text.encode().translate(SEPARATORS, SIGNS).split())
    if not SPECIAL.search(text):
        return len(WORD.findall(text))
    text, ideographs = IDEOGRAPH.subn(" ", text)
    unspaced = sum(-(-len(run) // SIGNS_OF_A_WORD) for run in UNSPACED.findall(text))
    return ideographs + unspaced + len(WORD.findall(UNSPACED.sub(" ", text)))
