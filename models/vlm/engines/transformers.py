"""Any image-text or video model of transformers, in this process, on a CPU or one GPU.

Slower than vLLM, and there for what vLLM lacks. Frames go to the model's own processor as they are: it resizes and
normalises them, and is told not to sample again.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import Any, ClassVar

from microg.errors import ConfigError, describe
from microg.models.vlm.architectures import make_known
from microg.models.vlm.base import Placement, Reply, Request, Sampling
from microg.models.vlm.engines.checkpoint import Checkpoint, LocalEngine, remote_code

# Text after a video of Qwen2-VL and Qwen2.5-VL begins one past the largest position in it, time included (Qwen's own
# code, transformers 4 and vLLM). Since transformers 5 it begins after the video's height and width alone, so that for a
# clip of more than a few frames the question lies among the positions of its frames. Other models of the family place
# every frame on its own.
_MOVED_MODELS = ("qwen2_vl", "qwen2_5_vl")
_VIDEO = 2


@dataclass
class TransformersEngine(LocalEngine):
    """A model of transformers (see `LocalEngine`); loaded when it is first asked.

    `device`: auto, cpu, cuda, cuda:1. `batch_size`: requests in one pass of the model; in 16 bits the composition of a
    batch can change an answer, 1 rules that out. `threads`: of torch in this process, which a tiny model is fastest
    with one of; None leaves them as they are.
    """

    device: str = "auto"
    batch_size: int = 8
    threads: int | None = None
    name: str = field(default="transformers", init=False)
    # while the model answers one batch the processor makes another ready
    calls_at_once: ClassVar[int] = 2
    _loaded: Any = field(default=None, init=False, repr=False)
    _model_in_use: Any = field(default_factory=threading.RLock, init=False, repr=False)

    @classmethod
    def settings_on(cls, place: Placement) -> dict[str, Any]:
        """Return where the model is loaded: Ray's actors see the GPU that they have as the first."""
        return super().settings_on(place) | {"device": place.device}

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {self.batch_size}")

    @cached_property
    def limit(self) -> int:
        """Tokens of a prompt and its answer together, at most."""
        return min(self.context or self.checkpoint.context, self.checkpoint.context)

    def fingerprint(self) -> dict[str, Any]:
        """Return engine and version, the checkpoint's content, number format, context, and how frames are shown."""
        about = {"engine": self.name, "version": version("transformers"), "context": self.limit}
        return about | self._fingerprint_fields()

    def load(self) -> Any:
        """Load the model, unless it is there already, and return it. Raises `ConfigError` when it cannot be."""
        with self._model_in_use:
            if self._loaded is None:
                if self.threads is not None:
                    import torch

                    torch.set_num_threads(self.threads)
                self._loaded = self._load()
            return self._loaded

    def adopt(self, model: Any) -> None:
        """Answer with a model that is loaded already, such as one in training."""
        self._loaded = model

    def _load(self) -> Any:
        return load_model(self.checkpoint, self.stored_as, self.device, self.trust_remote_code)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Reply]:
        """Yield one reply a request, batch after batch (see `microg.models.vlm.base.Engine`).

        Requests with frames of one size share a batch. Where text is drawn with a seed, each has its own pass, so that
        its answer depends on nothing but itself.
        """
        self.load()
        alike: dict[tuple[int, ...], list[Request]] = {}
        for request in requests:
            alike.setdefault(() if request.frames is None else request.frames.pixels.shape, []).append(request)
        size = 1 if sampling.temperature > 0 and sampling.seed is not None else self.batch_size
        for group in alike.values():
            for start in range(0, len(group), size):
                yield from self._answer(group[start : start + size], sampling)

    def close(self) -> None:
        """Free the model."""
        self._loaded = None
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _answer(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        """Answer a batch; when that fails, its requests alone, so that only those fail that must."""
        started = time.monotonic()
        try:
            inputs = self.chat.inputs(batch, self.processor)
            lengths = inputs["attention_mask"].sum(1).tolist()
            long = [length >= self.limit for length in lengths]
            # padded to the longest prompt, a shorter one would have less room for its answer than alone
            cramped = len(batch) > 1 and max(lengths) + sampling.max_tokens > self.limit
            if not any(long):
                if cramped:
                    return [reply for request in batch for reply in self._answer([request], sampling)]
                return self._decode(batch, inputs, sampling, started)
        except ConfigError:
            raise
        except Exception as error:
            if len(batch) == 1:
                return [_failed(batch[0], describe(error), started)]
            return [reply for request in batch for reply in self._answer([request], sampling)]
        replies = [
            _failed(request, f"the prompt has {length} tokens, the context {self.limit}", started)
            for request, length, bad in zip(batch, lengths, long, strict=True)
            if bad
        ]
        good = [request for request, bad in zip(batch, long, strict=True) if not bad]
        return replies + (self._answer(good, sampling) if good else [])

    def _decode(self, batch: Sequence[Request], inputs: Any, sampling: Sampling, started: float) -> list[Reply]:
        import torch

        model = self.load()
        width = inputs["input_ids"].shape[1]
        with self._model_in_use, torch.inference_mode(), _seeded(sampling, model.device):
            options = self._options(sampling, min(sampling.max_tokens, self.limit - width))
            inputs = inputs.to(model.device, dtype=model.dtype)
            produced = model.generate(**inputs, **options)[:, width:].tolist()
        seconds = time.monotonic() - started
        replies = []
        for request, ids, mask in zip(batch, produced, inputs["attention_mask"], strict=True):
            text, count, reason = self._read(ids, sampling.stop)
            tokens = int(mask.sum())
            replies.append(Reply(request.key, text, "ok", None, reason, tokens, count, seconds))
        return replies

    def _options(self, sampling: Sampling, most: int) -> dict[str, Any]:
        """Return the arguments of `generate`; the checkpoint's own taste (see `load_model`) plays no part."""
        options: dict[str, Any] = {"max_new_tokens": most, "do_sample": sampling.temperature > 0}
        if sampling.temperature > 0:
            options |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        if sampling.stop:
            options |= {"stop_strings": list(sampling.stop), "tokenizer": self.chat.tokenizer}
        if sampling.json_schema is not None:
            options["logits_processor"] = [self._grammar(sampling.json_schema)]
        return options

    def _read(self, ids: list[int], stop: Sequence[str]) -> tuple[str, int, str]:
        """Return the text, the number of tokens with the one that ended it, and why it ended."""
        config = self.load().generation_config
        ends, pad = config.eos_token_id, config.pad_token_id
        while ids and ids[-1] == pad and pad not in ends:  # of a row that a stop word ended before its neighbours
            ids = ids[:-1]
        end = next((at for at, token in enumerate(ids) if token in ends), None)
        kept = ids if end is None else ids[: end + 1]
        text = self.chat.decode(kept)
        cuts = [at for word in stop if (at := text.find(word)) >= 0]
        reason = "length" if end is None and not cuts else "stop"
        return (text[: min(cuts)] if cuts else text), len(kept), reason

    def _grammar(self, schema: Mapping[str, Any]) -> Any:
        """Return what keeps an answer within a JSON schema, good for one pass."""
        compiler = self._compiler
        from xgrammar.contrib.hf import LogitsProcessor

        # no free white space: of that alone a model can fill an answer
        return LogitsProcessor(
            compiler.compile_json_schema(json.dumps(dict(schema)), any_whitespace=False, separators=(",", ":"))
        )

    @cached_property
    def _compiler(self) -> Any:
        try:
            import xgrammar
        except ModuleNotFoundError:
            raise ConfigError("answers of a JSON shape need the package xgrammar", "uv pip install xgrammar") from None
        size = self.load().get_output_embeddings().weight.shape[0]
        ends = self.load().generation_config.eos_token_id
        about = xgrammar.TokenizerInfo.from_huggingface(self.chat.tokenizer, vocab_size=size, stop_token_ids=ends)
        return xgrammar.GrammarCompiler(about)


def load_model(
    checkpoint: Checkpoint,
    dtype: str = "float32",
    device: str = "auto",
    trust_remote_code: bool = False,
    **options: Any,
) -> Any:
    """Return a checkpoint's model, ready to answer or to be trained further; `options` are those of transformers.

    Of its generation settings only the tokens that end an answer are kept: many checkpoints bring a temperature or a
    penalty on repetition, with which greedy would not be greedy. Raises `ConfigError` when it cannot be loaded.
    """
    from transformers import AutoModelForImageTextToText, GenerationConfig

    from microg.models.devices import resolve_device

    kind = number_format(dtype)
    place = resolve_device(device)
    make_known(checkpoint.config)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            checkpoint.source,
            revision=checkpoint.revision or "main",
            dtype=kind,
            trust_remote_code=trust_remote_code,
            **({**options, "device_map": place} if options else {}),
        )
    except Exception as error:
        raise ConfigError(
            f"transformers cannot load {checkpoint.source}: {describe(error)[:300]}", remote_code(error)
        ) from None
    ends = model.generation_config.eos_token_id
    ends = model.config.get_text_config().eos_token_id if ends is None else ends
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    pad = model.generation_config.pad_token_id
    model.generation_config = GenerationConfig(
        eos_token_id=ends,
        pad_token_id=pad if pad is not None else (ends[0] if ends else None),
        bos_token_id=model.generation_config.bos_token_id,
    )
    return restore_positions((model if options else model.to(place)).eval())  # pyright: ignore[reportArgumentType]


def number_format(name: str) -> Any:
    """Return torch's number format of this name. Raises `ConfigError` when there is none."""
    import torch

    kind = getattr(torch, name, None)
    if not isinstance(kind, torch.dtype):
        raise ConfigError(f"there is no number format {name!r}", "use auto, float32, bfloat16 or float16")
    return kind


def restore_positions(model: Any) -> Any:
    """Make a loaded Qwen2-VL or Qwen2.5-VL place text as it was trained to; returns the model, others unchanged.

    Does nothing where the installed transformers does so already. Train and run such a model with it: a checkpoint
    trained without gives other answers in vLLM.
    """
    if model.config.model_type not in _MOVED_MODELS:
        return model
    inner = model.model
    inherited = inner.get_rope_index

    def get_rope_index(input_ids: Any, mm_token_type_ids: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        positions, _ = inherited(input_ids, mm_token_type_ids, *args, **kwargs)
        return _after_videos(positions, mm_token_type_ids, kwargs.get("attention_mask"))

    inner.get_rope_index = get_rope_index
    return model


def _after_videos(positions: Any, types: Any, mask: Any) -> tuple[Any, Any]:
    """Move what follows each video to one past its largest position.

    positions: (3, rows, tokens). Returns them and, (rows, 1), how far a row's positions are ahead of its tokens.
    """
    import torch

    ahead = []
    for row in range(positions.shape[1]):
        seen = torch.ones_like(types[row], dtype=torch.bool) if mask is None else mask[row].bool()
        own = positions[:, row, seen]
        groups = [(kind, len(list(group))) for kind, group in itertools.groupby(types[row][seen].tolist())]
        at = 0
        for kind, length in groups[:-1]:
            at += length
            if kind == _VIDEO:
                own[:, at:] += own[:, at - length : at].max() + 1 - own[:, at].min()
        positions[:, row, seen] = own
        ahead.append(own.max() + 1 - own.shape[1])
    return positions, torch.stack(ahead)[:, None]


@contextmanager
def _seeded(sampling: Sampling, device: Any) -> Iterator[None]:
    """Draw from the sampling's seed inside, and leave the generators outside as they were."""
    import torch

    if sampling.seed is None or sampling.temperature == 0:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(sampling.seed)
        yield


def _failed(request: Request, error: str, started: float) -> Reply:
    return Reply(request.key, status="error", error=error, latency_s=time.monotonic() - started)
