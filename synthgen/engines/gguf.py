"""Turns a GGUF file into the folder of safetensors, tokenizer and chat template that vLLM loads."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgen.engines.vllm_setup import not_installed
from synthgen.errors import EngineUnreachable
from synthgen.models import file_digest, gguf_metadata
from synthgen.workplace import workplace

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MARK = "converted.json"
_MADE = 2  # counts the ways of converting: what was made in another is made again


def to_safetensors(gguf: Path, into: Path) -> Path:
    """The folder beneath `into` with this file's weights, made the first time it is asked for.

    Weights become bfloat16. The folder's name carries the file's digest, and it appears whole or not at all.
    Raises `EngineUnreachable` where the file cannot be read or transformers does not know what it holds.
    """
    try:
        digest = file_digest(gguf)
    except OSError as error:
        raise EngineUnreachable(f"cannot read {gguf}: {error}") from error
    target = into / f"{gguf.stem}-{digest[:16]}"
    if _is_whole(target, digest):
        return target
    try:
        with workplace(target) as made:
            if not _is_whole(target, digest):  # another process may have been at it
                _make(gguf, made, digest)
                shutil.rmtree(target, ignore_errors=True)
                made.rename(target)
    except OSError as error:
        raise EngineUnreachable(
            f"cannot write to {into}: {error}", hint="SYNTHGEN_CACHE names another folder"
        ) from error
    return target


def _make(gguf: Path, made: Path, digest: str) -> None:
    try:
        _convert(gguf, made)
    except ModuleNotFoundError as error:
        raise not_installed() from error
    except Exception as error:  # transformers raises many kinds for what it does not know
        raise EngineUnreachable(
            f"cannot turn {gguf.name} into safetensors: {error}",
            hint="run it with the llamacpp engine, or give vLLM a folder with safetensors",
        ) from error
    files = {file.name: file.stat().st_size for file in sorted(made.iterdir())}
    (made / _MARK).write_text(json.dumps({"gguf_sha256": digest, "made": _MADE, "files": files}))
    _sync(made)


def _convert(gguf: Path, made: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    said = gguf_metadata(gguf)
    template = said.get("tokenizer.chat_template")
    source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    with contextlib.redirect_stderr(io.StringIO()):  # several progress bars, not all of which can be told
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), **source)
        tokenizer.chat_template = template
        for name, token in _special_tokens(said).items():
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(token))
        if said.get("tokenizer.ggml.model") == "gpt2":
            read_bytes(tokenizer.backend_tokenizer)
        model = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent),
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
            **source,
        )
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        saved = AutoTokenizer.from_pretrained(str(made), local_files_only=True)
    if saved.chat_template != template:
        raise ValueError("its chat template was lost")
    for name, token in _special_tokens(said).items():
        if getattr(saved, f"{name}_id") != token:
            raise ValueError(f"its {name} was lost")


def _special_tokens(said: Mapping[str, Any]) -> dict[str, int]:
    """The numbers of the tokens that begin, end and pad a text. Transformers 5.17 mixes some of them up."""
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    numbers = {name: said.get(f"tokenizer.ggml.{key}_token_id") for name, key in names.items()}
    return {name: number for name, number in numbers.items() if isinstance(number, int)}


def read_bytes(tokenizer: Tokenizer) -> None:
    """Make a tokenizer of GPT-2's kind say so: each letter of its tokens stands for a byte.

    Transformers 5.17 (5.19 no longer) writes one with SentencePiece's marks. It cuts and joins text as it
    should, but llguidance takes its tokens for other bytes than they are, so that no answer fits its schema.
    """
    from tokenizers import decoders

    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.model.byte_fallback = False


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        mark = json.loads((folder / _MARK).read_text())
        sizes = {name: (folder / name).stat().st_size for name in mark["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(mark["gguf_sha256"] == digest and mark.get("made") == _MADE and mark["files"] == sizes)


def _sync(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
