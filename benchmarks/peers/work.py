"""What the scripts beside this one share: the work they are given, and the check that no row was lost."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "stand-in"
PROMPT = "Explain in a paragraph: "
TOKENS = 200


@dataclass(frozen=True)
class Work:
    """An answer to each of the first `rows` texts of `docs`, from the server `url`, into the folder `out`."""

    url: str
    rows: int
    concurrency: int
    docs: Path
    out: Path

    def texts(self) -> list[str]:
        with self.docs.open() as file:
            return [json.loads(line)["text"] for _, line in zip(range(self.rows), file, strict=False)]

    def check(self, answers: Iterable[Any]) -> None:
        """End the script with a sentence unless there is one answer, with words in it, for each row."""
        count = sum(1 for answer in answers if isinstance(answer, str) and answer.strip())
        if count != self.rows:
            raise SystemExit(f"{count} answers came out for {self.rows} rows")


def given() -> Work:
    """What the command line asks for: URL ROWS CONCURRENCY DOCS.jsonl OUTDIR. Turns telemetry off."""
    os.environ.update(
        DO_NOT_TRACK="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_OFFLINE="1",  # nothing here needs the hub
        LITELLM_LOCAL_MODEL_COST_MAP="True",  # Curator's: no download of prices when it is imported
        NEMO_TELEMETRY_ENABLED="false",  # Data Designer
        OPENAI_API_KEY="none",  # the openai client refuses to start without one
        TELEMETRY_ENABLED="false",  # Curator
    )
    url, rows, concurrency, docs, out = sys.argv[1:]
    Path(out).mkdir(parents=True, exist_ok=True)
    return Work(url, int(rows), int(concurrency), Path(docs), Path(out))
