"""Nothing private leaks: what stands in every place where a secret could be is in no output of a run."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.processes import ended
from tests.standin import Settings, StandIn, serving
from tests.support import project, read_jsonl, recipe, write

# Each is a word that nothing else says; none looks like anybody's key.
CANARY = {
    name: f"canary{number:02d}of{name}"
    for number, name in enumerate(
        "user server team openai query queryofrecipe home account host proxy cookie other".split()
    )
}
FAULTS = {"429": 0.2, "429-after": 0.1, "503": 0.1, "reset": 0.05, "half": 0.05, "not-json": 0.05}
NAMED = """
import platform, socket
socket.gethostname = socket.getfqdn = platform.node = lambda *_: {host!r}
from synthgen.cli import main
main()
"""


class Home:
    """A user whose home, environment and configuration are full of secrets, with a project in it."""

    def __init__(self, root: Path, server: StandIn, other: StandIn) -> None:
        self.folder = root / CANARY["home"]
        self.project = self.folder / "project"
        said = recipe(
            model={"engine": "openai", "id": "standin"},
            models={
                "other": {
                    "engine": "openai",
                    "id": "standin",
                    "base_url": f"{other.url}?key={CANARY['queryofrecipe']}",
                }
            },
            steps=[
                {"question": {"prompt": {"user": "Ask of {{ doc }}"}}},
                {"answer": {"model": "other", "prompt": {"user": "Answer {{ question }}"}}},
            ],
            filters=[{"words": {"min": 14}}, "refusal", {"judge": {"min": 1}}, "duplicate"],
        )
        project(self.project, said, rows=40)
        write(
            self.folder,
            {"config/config.toml": f'[keys]\n"http://127.0.0.1:{other.port}" = "env:TEAM_TOKEN"\n'},
        )
        self.environment = {
            "HOME": str(self.folder),
            "SYNTHGEN_CONFIG": str(self.folder / "config" / "config.toml"),
            "SYNTHGEN_BASE_URL": f"{server.url}?token={CANARY['query']}",
            "SYNTHGEN_API_KEY": CANARY["server"],
            "TEAM_TOKEN": CANARY["team"],
            "OPENAI_API_KEY": CANARY["openai"],
            "USER": CANARY["user"],
            "LOGNAME": CANARY["account"],
            "HOSTNAME": CANARY["host"],
            "HTTP_PROXY": f"http://me:{CANARY['proxy']}@127.0.0.1:9",
            "no_proxy": "127.0.0.1",
            "SOME_PASSWORD": CANARY["other"],
        }
        self.said: list[str] = []

    def runs(self, *arguments: object, code: int = 0) -> str:
        out, err = ended(
            *arguments, code=code, cwd=self.project, env=self.environment,
            script=NAMED.format(host=CANARY["host"]),
        )  # fmt: skip
        self.said += [out, err]
        return out

    def secrets(self) -> Iterator[str]:
        """The canaries, and the body of the private key."""
        yield from CANARY.values()
        for pem in (self.folder / "config" / "keys").glob("*.pem"):
            yield pem.read_text().splitlines()[1]


def texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All that the files of a folder say: as they stand, and what is packed in them."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file():
            yield name, path.read_bytes()
        if path.name == "manifest.json":
            yield f"{name}: payload", base64.b64decode(json.loads(path.read_bytes())["payload"])
        elif path.suffix == ".parquet":
            yield f"{name}: rows", repr(pq.read_table(path).to_pylist()).encode()
        elif path.name == "run.sqlite":
            with closing(sqlite3.connect(path)) as journal:
                query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
                for table in [row[0] for row in journal.execute(query)]:
                    for row in journal.execute(f"SELECT * FROM {table}"):
                        cells = (cell if isinstance(cell, bytes) else str(cell).encode() for cell in row)
                        yield f"{name}: {table}", b"\n".join(cells)


@pytest.fixture
def servers() -> Iterator[tuple[StandIn, StandIn]]:
    common = {"echo_key": True, "cookie": f"session={CANARY['cookie']}", "retry_after": 0.01}
    one = Settings(key=CANARY["server"], faults=FAULTS, most_faults=3, unusable={"blank": 0.1}, **common)
    other = Settings(key=CANARY["team"], faults=FAULTS, most_faults=3, context=28, **common)
    with serving(one) as server, serving(other) as second:
        yield server, second


def test_no_secret_is_in_any_output(tmp_path: Path, servers: tuple[StandIn, StandIn]) -> None:
    server, other = servers
    home = Home(tmp_path, server, other)
    home.runs("keys", "new", code=0)
    home.said.clear()  # it says where the key is, to the one whose key it is
    home.runs("run", "recipes/a.yaml", "-o", "runs/a", "--json", code=3)
    home.runs("run", "recipes/a.yaml", "-o", "runs/a", "--retry-failed", code=3)
    home.runs("curate", "runs/a", "--set", "words.min=16", code=3)
    home.runs("status", "runs/a", "--json")
    home.runs("show", "runs/a", "--state", "failed", "--json")
    home.runs("audit", "verify", "runs/a", "--json")
    for form in ("prov", "croissant", "csv"):
        home.runs("audit", "export", "runs/a", form)
    folder = home.project / "runs" / "a"

    # The secrets were where they could leak from, and the faults struck.
    assert set(server.keys) == {f"Bearer {CANARY['server']}"}
    assert set(other.keys) == {f"Bearer {CANARY['team']}"}
    assert server.faulted.total() > 5
    assert other.faulted.total() > 5
    failed = read_jsonl(folder / "failed.jsonl")
    assert any("[key]" in error for row in failed for error in row["errors"])
    assert any(b"slow down" in text for name, text in texts(folder) if name == "run.sqlite: failures")

    everything = [*texts(folder), *(("said", text.encode()) for text in home.said)]
    assert len({name for name, _ in everything}) > 20
    for secret in home.secrets():
        assert [name for name, text in everything if secret.encode() in text] == [], secret
    assert [name for name, text in everything if str(tmp_path).encode() in text] == []


def test_no_secret_is_in_a_refusal_of_entry(tmp_path: Path, servers: tuple[StandIn, StandIn]) -> None:
    server, other = servers
    server.set(key="another")
    home = Home(tmp_path, server, other)
    home.runs("run", "recipes/a.yaml", "-o", "runs/a", code=4)
    assert "Incorrect API key provided: Bearer [key]" in home.said[-1]
    everything = [*texts(home.project / "runs"), *(("said", text.encode()) for text in home.said)]
    for secret in home.secrets():
        assert [name for name, text in everything if secret.encode() in text] == [], secret
