"""The `vllm` engine: vLLM in this process, on a GPU or a CPU, with continuous batching."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from synthgen.engines.base import (
    Completion,
    EngineDied,
    ModelIdentity,
    Request,
    RequestFailed,
    RequestRetryable,
    Token,
)
from synthgen.engines.hardware import processor
from synthgen.engines.leash import Leash, end, tree
from synthgen.engines.marks import Marks, marks_of_tokenizer
from synthgen.engines.turns import OpenTurn, cut, is_open, marked, stops
from synthgen.engines.vllm_setup import (
    check_options,
    check_sampling,
    engine_arguments,
    environment,
    unreachable,
)
from synthgen.errors import EngineUnreachable, UsageError

_Made = TypeVar("_Made")
WATCHED_EVERY = 1.0  # seconds
TOLD_WITHIN = 5.0  # seconds in which vLLM tells its requests that their process ended, where it does
_starting = threading.Lock()  # vLLM is told much through the environment, of which there is one


class VllmEngine:
    """vLLM's asynchronous engine over one model: a local directory, or a hub id with a revision.

    `options` are vLLM's engine arguments, `template_args` go to the chat template. Raises `UsageError`
    for an option that a recipe cannot set. Images are not covered.
    """

    def __init__(
        self,
        path: str,
        identity: ModelIdentity,
        *,
        options: Mapping[str, Any] | None = None,
        template_args: Mapping[str, Any] | None = None,
        revision: str | None = None,
    ) -> None:
        self.identity = identity
        self._path = path
        self._options = check_options(options or {})
        self._template_args = dict(template_args or {})
        self._revision = revision
        self.slots = _slots(int(self._options.get("max_num_seqs", 256)))
        self._llm: Any = None
        self._ids = itertools.count()
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._dead = False
        self._watching: asyncio.Task[None] | None = None
        self._leash: Leash | None = None
        self._logs: Path | None = None
        self._others: set[int | None] | None = None
        self._children: dict[int, BaseProcess] = {}
        self._processes: list[Any] = []
        self._marks = Marks((), "")
        self._tokenizing: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Load the model, also after a `close`.

        Raises `EngineUnreachable`, with vLLM's own reason, where it cannot be loaded.
        """
        self._closed = self._dead = False
        self._others = None
        # A tokenizer is not safe in two threads at once; one keeps it off the event loop.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        self._logs = Path(tempfile.mkdtemp(prefix="synthgen-vllm-"))
        self._leash = Leash(self._logs)
        outcome: list[BaseException | Any] = []
        thread = threading.Thread(target=self._load, args=(outcome,), daemon=True, name="vllm-start")
        thread.start()
        try:
            while thread.is_alive():
                self._find_children()
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            self._closed = True
            while thread.is_alive():  # vLLM gives up as soon as the processes it started are gone
                self._find_children()
                if self._children:
                    end(tree(self._children))
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.05)
            await self.close()
            raise
        self._find_children()
        result = outcome.pop()
        if isinstance(result, BaseException):
            await self.close()
            raise result
        self._hold_processes()
        self._llm = result
        config = self._llm.vllm_config
        self.slots = _slots(config.scheduler_config.max_num_seqs)
        self._limit: int = config.model_config.max_model_len
        self._tokenizer = self._llm.get_tokenizer()
        self._marks = marks_of_tokenizer(self._tokenizer)
        self.identity = dataclasses.replace(
            self.identity, details={**self.identity.details, **_details(config)}
        )
        self._watching = asyncio.create_task(self._watch())
        try:
            await self._tokenize([{"role": "user", "content": "Hello"}])
        except RequestFailed as error:
            await self.close()
            raise EngineUnreachable(f"cannot ask {self.identity.id}: {error}") from error

    async def complete(self, request: Request) -> Completion:
        """Answer one request.

        Raises `RequestFailed` for one that this model cannot answer (too long, a schema that vLLM cannot
        decode under), `RequestRetryable` where the engine dropped it, `EngineUnreachable` once it is dead.
        """
        if self._llm is None:
            raise EngineUnreachable("the vLLM engine is not running")
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await self._complete(request)
        except asyncio.CancelledError:
            if (self._closed or self._dead) and task.cancelling():
                task.uncancel()
                if not self._closed:
                    raise self._died() from None
                raise EngineUnreachable("the vLLM engine was closed before it answered") from None
            raise
        finally:
            self._running.discard(task)

    async def tokens(self, text: str) -> list[Token]:
        """The tokens of a text. Raises `EngineUnreachable` where the engine is not running."""
        if self._llm is None:
            raise EngineUnreachable("the vLLM engine is not running")

        def split() -> list[Token]:
            numbers = self._tokenizer.encode(text, add_special_tokens=False)
            return [Token(int(number), str(self._tokenizer.decode([number]))) for number in numbers]

        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, split)

    async def close(self) -> None:
        """End the engine and its processes, within seconds; may be called at any time, also twice."""
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        for task in self._running:
            task.cancel()
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown, timeout=2.0)
        if self._processes:
            await asyncio.to_thread(end, self._processes)
        for child in self._children.values():
            await asyncio.to_thread(child.join, 5.0)
        self._children.clear()
        self._processes.clear()
        if self._leash is not None:
            self._leash.release()
            self._leash = None
        if self._logs is not None:
            shutil.rmtree(self._logs, ignore_errors=True)
        if self._tokenizing is not None:
            self._tokenizing.shutdown(wait=False)

    async def _complete(self, request: Request) -> Completion:
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        if is_open(request.messages):
            prompt, ends = await self._open(request)
            params = _sampling_params(request, ends)
        else:
            params = _sampling_params(request)
            prompt = await self._tokenize(request.messages)
        if len(prompt) >= self._limit:
            raise RequestFailed(
                f"the prompt has {len(prompt)} tokens, and the model's context of {self._limit} "
                "has to hold the answer too"
            )
        final = None
        try:
            async for output in self._llm.generate(tokens_input(prompt), params, str(next(self._ids))):
                final = output
        except EngineDeadError as error:
            raise self._died() from error
        except EngineGenerateError as error:
            raise RequestRetryable(f"vLLM failed on this request: {error.__cause__ or error}") from error
        except _refusals() as error:
            raise RequestFailed(f"vLLM refused this request: {error}") from error
        if final is None or not final.finished:
            raise RequestRetryable("vLLM ended this request without an answer")
        answer = final.outputs[0]
        if answer.finish_reason in ("abort", "error"):
            early = f"vLLM ended this request early ({answer.finish_reason})"
            raise RequestRetryable(f"{early}; with SYNTHGEN_DEBUG=1 its log says why")
        return Completion(answer.text, str(answer.finish_reason), len(prompt), len(answer.token_ids))

    async def _tokenize(self, messages: Iterable[Mapping[str, Any]]) -> list[int]:
        def apply() -> list[int]:
            arguments = {"add_generation_prompt": True, **self._template_args}
            tokens = self._tokenizer.apply_chat_template(
                [self._marks.broken(message) for message in messages],
                tokenize=True,
                return_dict=False,
                **arguments,
            )
            return list(tokens)

        return await self._templated(apply)

    async def _open(self, request: Request) -> tuple[list[int], dict[str, Any]]:
        """The prompt of a turn that the model writes itself, and what ends its text."""

        def turn(answer: bool) -> OpenTurn:
            arguments = {**self._template_args, "add_generation_prompt": answer}
            text = self._tokenizer.apply_chat_template(marked(request.messages), tokenize=False, **arguments)
            return cut(text)

        def apply() -> tuple[list[int], dict[str, Any]]:
            # Some templates close a user's turn by what opens the answer.
            found = opened if (opened := turn(False)).end else turn(True)
            prompt = self._tokenizer.encode(found.prompt, add_special_tokens=False)
            end = self._tokenizer.encode(found.end, add_special_tokens=False)
            if len(end) == 1:  # a token of its own is left out of the text, where no `stop` would find it
                return prompt, {"stop_token_ids": end}
            return prompt, {"stop": stops(request.sampling.get("stop"), found.end)}

        return await self._templated(apply)

    async def _templated(self, apply: Callable[[], _Made]) -> _Made:
        """What is made with the chat template. Raises RequestFailed."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._tokenizing, apply)
        except RequestFailed:
            raise
        except Exception as error:  # whatever a template raises, from jinja or by its own hand
            raise RequestFailed(f"the chat template refuses these messages: {error}") from error

    async def _watch(self) -> None:
        """End what waits for a process that ended: vLLM (0.32) forgets those of its first moment."""
        children = list(self._children.values())
        while all(child.exitcode is None for child in children):
            await asyncio.sleep(WATCHED_EVERY)
        await asyncio.sleep(TOLD_WITHIN)
        self._dead = True
        for task in self._running:
            task.cancel()

    def _died(self) -> EngineDied:
        codes = [child.exitcode for child in self._children.values() if child.exitcode]
        how = f"its process ended (exit code {codes[0]})" if codes else "its process ended"
        assert self._logs is not None
        said = unreachable("the vLLM engine died", RuntimeError(how), self._logs)
        # -9 is how the system ends a process where memory is short.
        memory = -signal.SIGKILL in codes or "out of memory" in said.message.lower()
        return EngineDied(said.message, hint=said.hint, out_of_memory=memory)

    def _find_children(self) -> None:
        """Take note of the processes that vLLM has started for this engine, and tell the watcher."""
        if self._others is None:
            return
        for child in multiprocessing.active_children():
            mine = child.pid not in self._others and child.name.startswith(("EngineCore", "VLLM_DP"))
            if mine and child.pid is not None and child.pid not in self._children:
                self._children[child.pid] = child
                self._hold_processes()

    def _hold_processes(self) -> None:
        assert self._leash is not None
        self._processes = tree(self._children)
        for process in self._processes:
            self._leash.hold(process.pid)

    def _load(self, outcome: list[Any]) -> None:
        """Put the loaded engine, or what went wrong, into `outcome`."""
        assert self._logs is not None
        try:
            with _starting, environment(self._logs):
                self._others = {child.pid for child in multiprocessing.active_children()}
                from vllm.engine.arg_utils import AsyncEngineArgs
                from vllm.usage.usage_lib import UsageContext
                from vllm.v1.engine.async_llm import AsyncLLM

                arguments = engine_arguments(self._path, self._revision, self._options)
                outcome.append(
                    AsyncLLM.from_engine_args(
                        # The context of the offline class brings the defaults that are made for throughput.
                        AsyncEngineArgs(**arguments),
                        usage_context=UsageContext.LLM_CLASS,
                    )
                )
        except BaseException as error:
            outcome.append(unreachable(f"vLLM could not start {self.identity.id}", error, self._logs))


def _slots(sequences: int) -> int:
    """A batch, and enough waiting behind it that one which ends is followed without a gap."""
    return sequences + max(1, sequences // 8)


def _sampling_params(request: Request, ends: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """As vLLM has them; `ends` are more ways in which the text may end."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    schema = request.schema
    try:
        check_sampling(request.sampling)
    except UsageError as error:
        raise RequestFailed(str(error)) from error
    try:
        return SamplingParams.from_optional(
            **{"max_tokens": None, **request.sampling, **ends},  # vLLM's own default is 16
            seed=request.seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=None if schema is None else StructuredOutputsParams(json=dict(schema)),
        )
    except _refusals() as error:
        raise RequestFailed(f"vLLM cannot sample like this: {error}") from error


def _refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises for a wrong request: an error of its own in newer releases."""
    from vllm import exceptions

    return (ValueError, TypeError, NotImplementedError, getattr(exceptions, "VLLMClientError", ValueError))


def _details(config: Any) -> dict[str, Any]:
    import torch
    import vllm
    from vllm.platforms import current_platform

    return {
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "device": current_platform.get_device_name(),
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "context": config.model_config.max_model_len,
        "sequences": config.scheduler_config.max_num_seqs,
        "batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "prefix_caching": bool(config.cache_config.enable_prefix_caching),
        "processor": processor(),
        "cores": os.cpu_count(),
        "cuda": torch.version.cuda,
        "driver": _driver(),
        "parallel": [
            config.parallel_config.tensor_parallel_size,
            config.parallel_config.pipeline_parallel_size,
            config.parallel_config.data_parallel_size,
        ],
    }


def _driver() -> str | None:
    """The version of NVIDIA's driver, where there is one."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
    return " ".join(first.split())[:200]
