"""The options that `run` alone takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

OutputOption = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="The run directory; runs/NAME by default.", envvar="SYNTHGEN_OUTPUT"),
]
RetryFailedOption = Annotated[
    bool,
    typer.Option("--retry-failed", help="Ask failed requests again.", envvar="SYNTHGEN_RETRY_FAILED"),
]
ReuseOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--reuse",
        help="Take answers to equal requests from this run, or from every run in this folder.",
        envvar="SYNTHGEN_REUSE",
    ),
]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        min=1,
        help="So many requests at a time, whatever the recipe's options say.",
        envvar="SYNTHGEN_CONCURRENCY",
    ),
]
MaxFailuresOption = Annotated[
    int | None,
    typer.Option(
        "--max-failures",
        min=0,
        help="So many failed tasks are tolerable; the run stops at one more.",
        envvar="SYNTHGEN_MAX_FAILURES",
    ),
]
PatienceOption = Annotated[
    float | None,
    typer.Option(
        "--patience",
        min=0,
        help="Seconds for which an engine's errors are ridden out while it answers nothing (300).",
        envvar="SYNTHGEN_PATIENCE",
    ),
]
YesOption = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Ask no question before an edited recipe.", envvar="SYNTHGEN_YES"),
]
