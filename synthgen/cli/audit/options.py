"""What the commands of `synthgen audit` share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.options import note, plain

if TYPE_CHECKING:
    from synthgen.audit.verify import FolderVerdict

EXIT_TAMPERED = 1
EXIT_CANNOT_JUDGE = 2
MEMORY = 4 << 30
AnyDirectory = Annotated[Path, typer.Argument(help="A run's directory, or a dataset's.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A record's id, or the beginning of it.")]


@contextmanager
def judging() -> Iterator[None]:
    """Where nothing can be judged, a sentence says why, and the command ends with 2."""
    from synthgen.audit.findings import CannotJudge

    try:
        yield
    except CannotJudge as error:
        note(f"cannot be judged: {plain(str(error), 1000)}")
        raise typer.Exit(EXIT_CANNOT_JUDGE) from None


@contextmanager
def in_bounds() -> Iterator[None]:
    """Files that unpack to more than memory holds end in a sentence: 4 GiB more than now, and no further."""
    try:
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, OSError, ValueError):  # not a Linux; the system's own limit holds
        yield
        return
    limits = [each for each in (soft, hard) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([now + MEMORY, *limits]), hard))
    try:
        yield
    except MemoryError:
        note(f"cannot be judged: it takes more than {MEMORY >> 30} GiB of memory")
        raise typer.Exit(EXIT_CANNOT_JUDGE) from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def as_published(dataset: Path) -> FolderVerdict:
    """What verifying a dataset came to. Raises RunError where it is not what was published."""
    from synthgen.audit.verify import verify
    from synthgen.errors import RunError

    with judging():
        verdict = verify(dataset)
    if not verdict.intact:
        first = verdict.findings.shown[0]
        raise RunError(
            f"{dataset} is not what was published: {first.file} {first.message}",
            hint=f"`synthgen audit verify {dataset}` has every finding; run the recipe again, and take that",
        )
    return verdict


def authenticity(signers: Sequence[str], authentic: bool | None) -> str:
    """Who signed, as far as that was checked."""
    named = ", ".join(plain(keyid, 80) for keyid in signers)
    if not signers:
        return "unsigned: whoever could write here could have made this manifest"
    if authentic is None:
        return f"not checked: it names the key {named}; give the public key with --key"
    if authentic:
        return f"signed by the key that was given, {named}"
    return f"NOT signed by the key that was given: it names {named}"
