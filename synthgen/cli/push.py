"""synthgen push: a dataset to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.options import JsonOption, note, out, out_json, plain


def push(
    directory: Annotated[Path, typer.Argument(help="A run's directory, a version's, or a dataset's.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME of a dataset on the Hub, made if it is new.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Upload a dataset to the Hugging Face Hub, once it is verified. A new repository is private.

    The token is the one that `hf auth login` or HF_TOKEN gave to huggingface_hub.
    """
    from synthgen.audit.material import Material
    from synthgen.cli.audit.options import as_published, judging
    from synthgen.export.hub import upload

    with judging():
        dataset = Material(directory).dataset
    verdict = as_published(dataset)
    note(f"uploading {verdict.files + 1:,} files …")
    url = upload(dataset, repository, private=not public)
    if as_json:
        out_json({"dir": str(dataset), "repository": repository, "url": url, "root": verdict.root})
        return
    out(plain(url))
