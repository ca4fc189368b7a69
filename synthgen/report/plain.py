"""Text from models and files, shown as text: nothing in it is markup, and nothing in it is unseen."""

from __future__ import annotations

import re
from html import escape

# Controls, zero-width signs, marks and overrides of direction, separators of lines and paragraphs, tags.
# The joiners U+200C and U+200D are left: Persian words and emoji are made with them.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)


def shown(text: str) -> str:
    """The text as HTML, each sign that cannot be seen as its number."""
    parts = []
    start = 0
    for found in UNSEEN.finditer(text):
        parts.append(escape(text[start : found.start()]))
        parts.append(f'<span class="unseen">U+{ord(found[0]):04X}</span>')
        start = found.end()
    parts.append(escape(text[start:]))
    return "".join(parts).encode(errors="replace").decode()
