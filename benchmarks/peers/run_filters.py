"""Texts a second of other tools' filters, one after the other on one core: TEXTS.json OUT.json.

Each is called as its tool calls it, on documents that are made beforehand. See `bench_filters.py`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def of_datatrove(name: str, **options: Any) -> Callable[[], Callable[[str], Any]]:
    def make() -> Callable[[str], Any]:
        from datatrove.data import Document
        from datatrove.pipeline import filters

        made = getattr(filters, name)(**options)
        return lambda text: made.filter(Document(text=text, id="1"))

    return make


TOOLS: dict[str, Callable[[], Callable[[str], Any]]] = {
    "datatrove GopherRepetitionFilter": of_datatrove("GopherRepetitionFilter"),
    "datatrove GopherQualityFilter": of_datatrove("GopherQualityFilter"),
    "datatrove C4QualityFilter": of_datatrove("C4QualityFilter"),
    "datatrove FineWebQualityFilter": of_datatrove("FineWebQualityFilter"),
}


def seconds(call: Callable[[str], Any], texts: list[str]) -> float:
    call(texts[0])
    began = time.process_time()
    for text in texts:
        call(text)
    return (time.process_time() - began) / len(texts)


def main() -> None:
    texts = json.loads(Path(sys.argv[1]).read_text())
    found: dict[str, Any] = {}
    for name, make in TOOLS.items():
        try:
            found[name] = seconds(make(), texts)
        except Exception as error:  # a tool that does not work here is told, and hides no other
            found[name] = f"{type(error).__name__}: {error}".splitlines()[0][:100]
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
