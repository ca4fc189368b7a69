"""`synthgen push`, against a stand-in of the Hub's interface as huggingface_hub speaks it."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.processes import ended
from tests.support import loaded, recipe, run_it, tree

TOKEN = "hf_token_of_a_test"


class Hub:
    """Repositories with their files, whether they are private, and who asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str | None] = set()


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def _answer(self, said: Any, code: int = 200) -> None:
        body = json.dumps(said).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.hub.tokens.add(self.headers["Authorization"])
        parts = self.path.partition("?")[0].split("/")
        if self.path.startswith("/api/datasets/"):
            repository = "/".join(parts[3:5])
            files = self.hub.files.get(repository)
            if files is None:
                return self._answer({"error": "Repository not found"}, 404)
            listed = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40, "rfilename": name}
                for name, data in files.items()
            ]
            if "tree" in parts:
                return self._answer(listed)
            return self._answer({"id": repository, "sha": "0" * 40, "siblings": listed, "private": True})
        return self._answer({"error": f"no {self.path}"}, 404)

    def do_POST(self) -> None:
        self.hub.tokens.add(self.headers["Authorization"])
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self._answer({"error": "Invalid username or password."}, 401)
        parts = self.path.partition("?")[0].split("/")
        if self.path == "/api/repos/create":
            said = json.loads(body)
            name = "/".join(filter(None, (said.get("organization"), said["name"])))
            address = f"{self.hub.url}/datasets/{name}"
            if name in self.hub.files:
                return self._answer({"error": "You already created this dataset repo", "url": address}, 409)
            self.hub.files[name] = {".gitattributes": b""}
            self.hub.private[name] = bool(said.get("private")) or said.get("visibility") == "private"
            return self._answer({"url": address, "name": name, "id": name})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        repository = "/".join(parts[3:5])
        if "preupload" in parts:
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            return self._answer({"files": files, "commitOid": "0" * 40})
        assert "commit" in parts
        there = self.hub.files[repository]
        for line in body.splitlines():
            said = json.loads(line)
            value = said["value"]
            if said["key"] == "file":
                there[value["path"]] = base64.b64decode(value["content"])
            elif said["key"] == "deletedFile":
                del there[value["path"]]
        commit = f"{self.hub.url}/datasets/{repository}/commit/{'1' * 40}"
        return self._answer({"commitUrl": commit, "commitOid": "1" * 40, "success": True})


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    _Handler.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield _Handler.hub
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    return run_it(loaded(root, recipe(), rows=6), directory=root / "run").dir


def pushed(hub: Hub, *arguments: object, cwd: Path, code: int = 0, token: str = TOKEN) -> tuple[str, str]:
    pytest.importorskip("huggingface_hub")
    env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HOME": str(cwd / "home"), "HF_HUB_DISABLE_XET": "1"}
    return ended("push", *arguments, cwd=cwd, env=env, code=code)


def test_the_files_are_there_as_they_are(hub: Hub, finished: Path, tmp_path: Path) -> None:
    out, _ = pushed(hub, finished, "me/rows", "--json", cwd=tmp_path)
    said = json.loads(out)
    assert said["url"].startswith(f"{hub.url}/datasets/me/rows/commit/")
    assert hub.files["me/rows"] == {".gitattributes": b"", **tree(finished / "dataset")}
    assert hub.private == {"me/rows": True}
    assert hub.tokens - {None} == {f"Bearer {TOKEN}"}


def test_what_is_no_more_is_removed(hub: Hub, finished: Path, tmp_path: Path) -> None:
    hub.files["me/rows"] = {"data/train-00001-of-00002.parquet": b"old", "LICENSE": b"mine", "README.md": b""}
    pushed(hub, finished / "dataset", "me/rows", cwd=tmp_path)
    assert hub.files["me/rows"] == {"LICENSE": b"mine", **tree(finished / "dataset")}


def test_public_by_choice(hub: Hub, finished: Path, tmp_path: Path) -> None:
    pushed(hub, finished, "me/rows", "--public", cwd=tmp_path)
    assert hub.private == {"me/rows": False}


def test_what_is_refused(hub: Hub, finished: Path, tmp_path: Path) -> None:
    _, err = pushed(hub, finished, "me/rows", cwd=tmp_path, code=1, token="hf_another")
    assert "the Hub did not take me/rows" in err
    assert "hf_another" not in err
    nowhere = Hub("http://127.0.0.1:9")
    _, err = pushed(nowhere, finished, "me/rows", cwd=tmp_path, code=1)
    assert "the Hub did not take me/rows" in err
    assert "nothing answered" in err
    assert "Traceback" not in err
    _, err = pushed(hub, finished, "not/a/name", cwd=tmp_path, code=2)
    assert "is no repository" in err
    shutil.copytree(finished / "dataset", tmp_path / "dataset")
    (tmp_path / "dataset" / "train.jsonl").write_text("{}\n")
    _, err = pushed(hub, tmp_path / "dataset", "me/rows", cwd=tmp_path, code=1)
    assert "train.jsonl" in err
    assert "is not what was published" in err
    assert hub.files == {}
