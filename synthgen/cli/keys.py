"""synthgen keys: the keys that sign what is published."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from synthgen.cli.options import note, out

app = typer.Typer(help="Keys that sign manifests.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _keys() -> None:
    """Keys that sign manifests."""


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The new key's name; `default` signs every run.")] = "default",
) -> None:
    """Make an ed25519 key pair; from then on runs are signed with the one called default."""
    from synthgen.errors import UsageError
    from synthgen.provenance.keys import keys_folder, new_key
    from synthgen.recipe_parts import NAME

    if not NAME.match(name) or name.startswith("."):
        raise UsageError(f"{name!r} is not a name: 1 to 80 of A-Z a-z 0-9 . _ -")
    file = keys_folder(os.environ) / name
    keyid = new_key(file.with_name(f"{name}.pem"))
    out(f"{file}.pub")
    note(f"key {keyid}")
    note(f"give {file}.pub to those who verify; {file}.pem is for you alone")
    if name != "default":
        note(f"SYNTHGEN_SIGNING_KEY={file}.pem signs with it")
