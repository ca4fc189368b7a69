"""The engines that answer requests, one a file, and opening the one that a recipe names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from synthgen.engines.base import Engine, ModelIdentity
from synthgen.recipe_models import ModelRef

Sampling = Mapping[str, Any]
OPENAI_URL = "https://api.openai.com/v1"


def open_engines(
    models: Mapping[str, ModelRef],
    sampling: Mapping[str, Sequence[Sampling]],
    *,
    root: Path,
    base_url: str | None = None,
    concurrency: int | None = None,
    notify: Callable[[str], None] | None = None,
) -> dict[str, Engine]:
    """An engine for each model, two names of one model sharing it. Weights are fetched; nothing is loaded.

    `sampling` is what each model will be asked with, `root` where a recipe's paths begin, `base_url` the
    address that the user, not the recipe, named, `concurrency` how many requests each is to take at a time,
    whatever its options say. Raises UsageError for an option or a sampling parameter
    that an engine does not have, EngineUnreachable where a model cannot be had.
    """
    opened: dict[str, Engine] = {}
    engines: dict[str, Engine] = {}
    for name, model in models.items():
        alike = model.model_dump_json(exclude={"prices", "terms"})
        if alike not in opened:
            opened[alike] = _open(model, root, base_url, concurrency, notify)
        engines[name] = opened[alike]
        for asked in sampling.get(name, ()):
            _check_sampling(model, engines[name].identity.engine, asked)
    return engines


def _open(
    model: ModelRef,
    root: Path,
    base_url: str | None,
    concurrency: int | None,
    notify: Callable[[str], None] | None,
) -> Engine:
    from synthgen import models

    if model.engine == "openai" or (model.engine is None and model.base_url):
        return _openai(_paced(model, "concurrency", concurrency), base_url)
    place = Path.cwd() if (Path.cwd() / model.id).exists() else root
    files = models.locate(model.id, revision=model.revision, base=place, notify=notify)
    assert files.path is not None
    if model.engine == "llamacpp" or (model.engine is None and files.kind == "gguf"):
        from synthgen.engines.llamacpp import LlamaCppEngine

        if files.kind != "gguf":
            from synthgen.errors import UsageError

            raise UsageError(f"the llamacpp engine reads .gguf files, and {model.id} is none")
        return LlamaCppEngine(
            files.path,
            ModelIdentity("llamacpp", files.id, files.revision, files.weights),
            options=_paced(model, "slots", concurrency).options,
            template_args=model.template_args,
        )
    from synthgen.engines.vllm import VllmEngine

    path = files.path
    if files.kind == "gguf":
        from synthgen.engines.gguf import to_safetensors

        if notify:
            notify(f"vLLM reads {model.id} as safetensors; converting it, unless that was done before")
        path = to_safetensors(path, models.cache_dir() / "converted")
    return VllmEngine(
        str(path),
        ModelIdentity("vllm", files.id, files.revision, files.weights),
        options=_paced(model, "max_num_seqs", concurrency).options,
        template_args=model.template_args,
    )


def _paced(model: ModelRef, option: str, concurrency: int | None) -> ModelRef:
    """The model with its engine's option for requests at a time."""
    if concurrency is None:
        return model
    return model.model_copy(update={"options": {**model.options, option: concurrency}})


def _openai(model: ModelRef, base_url: str | None) -> Engine:
    from synthgen.engines.keys import key_for, user_config
    from synthgen.engines.openai import OpenAIEngine

    address = model.base_url or OPENAI_URL
    return OpenAIEngine(
        address,
        ModelIdentity("openai", model.id, model.revision),
        api_key=key_for(
            address,
            named_by_user=base_url is not None and address == base_url,
            environ=os.environ,
            config=user_config(os.environ),
        ),
        options=model.options,
        template_args=model.template_args,
    )


def _check_sampling(model: ModelRef, engine: str, sampling: Sampling) -> None:
    if engine == "openai":
        from synthgen.engines import openai

        openai.check_sampling(model.base_url or OPENAI_URL, sampling)
    elif engine == "llamacpp":
        from synthgen.engines import llamacpp

        llamacpp.check_sampling(sampling)
    else:
        from synthgen.engines import vllm_setup

        vllm_setup.check_sampling(sampling)
