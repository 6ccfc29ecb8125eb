"""Engines that run a checkpoint themselves: its files, its processor and chat template, and what they have in common.

Both such engines write prompts with the model's own chat template, applied by its own processor, so that the same
request is the same tokens in each of them.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from microg import storage
from microg.errors import ConfigError, MicrogError, describe
from microg.models.vlm.architectures import make_known
from microg.models.vlm.base import Engine, Estimate, Frames, Placement, Request, Sampling
from microg.models.vlm.gpu_memory import GpuMemory, ModelSizes, gpu_memory
from microg.models.vlm.layouts import refuse_unconverted
from microg.reading import reads, refuse_pointers_in
from microg.system.folders import RemoteFolder
from microg.system.hub import hub_answers

FramesAs = Literal["auto", "video", "images"]
_GB = 1e9
_DEFAULT_CONTEXT = 4096
# What transformers' metadata of a video has no field for.
_NOT_METADATA = ("do_sample_frames",)


@dataclass(frozen=True)
class Checkpoint:
    """A model's files.

    Attributes:
        name: Its folder, or the hub's id at the commit `revision`.
        revision: Commit on the hub.
        config: What config.json holds.
        folder: Where its small files lie on this machine, at least.
        remote: The folder at a URI that `folder` is copied from.
    """

    name: str
    revision: str | None
    config: dict[str, Any]
    folder: Path | None = None
    remote: RemoteFolder | None = None

    @cached_property
    def source(self) -> str:
        """What engines load: `name`, with all files on this machine where they come from a URI."""
        if self.remote is not None:
            self.remote.keep()
        return self.name

    @property
    def text_config(self) -> dict[str, Any]:
        """The language model's part of config.json."""
        return {**self.config, **(self.config.get("text_config") or self.config.get("llm_config") or {})}

    @property
    def dtype(self) -> str:
        """The type that weights are stored in, as torch calls it."""
        for config in (self.config, self.text_config):
            dtype = config.get("dtype") or config.get("torch_dtype")
            if isinstance(dtype, str):
                return dtype.removeprefix("torch.")
        return "bfloat16"

    @property
    def context(self) -> int:
        """Tokens that the language model was made for."""
        context = self.text_config.get("max_position_embeddings")
        return context if isinstance(context, int) else _DEFAULT_CONTEXT

    @property
    def weights_gb(self) -> float | None:
        """Size of the weights in GB (10^9 bytes); None where it is not known on this machine."""
        if self.remote is not None:
            return self.remote.weights_bytes / _GB
        folder = self.folder
        files = [] if folder is None else [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
        return sum(file.stat().st_size for file in files) / _GB if files else None

    @cached_property
    def identity(self) -> dict[str, str]:
        """What names the content: the hub's id and commit, or a hash over all files of the folder."""
        if self.folder is None or self.revision is not None:
            return {"model": self.name, "revision": str(self.revision)}
        return {"model": self.folder.name, "sha256": _folder_hash(self.source)}

    def kv_bytes_per_token(self, value_bytes: int) -> int:
        """Return what one token takes in the cache of keys and values."""
        text = self.text_config
        heads = text.get("num_attention_heads") or 1
        size = text.get("head_dim") or (text.get("hidden_size") or 4096) // heads
        layers, kv_heads = text.get("num_hidden_layers") or 32, text.get("num_key_value_heads") or heads
        return 2 * layers * kv_heads * size * value_bytes


@cache
def find(model: str, revision: str | None = None) -> Checkpoint:
    """Return the checkpoint `model`, a folder, one at a URI, or a hub id; copies small files of it at most.

    A hub id is pinned to the commit that `revision` (None: the main branch) stands for now. Raises `ConfigError` when
    there is none.
    """
    if not storage.is_local(model):
        if revision is not None:
            raise ConfigError(f"{model} is a folder, which has no revisions", "leave out the setting revision")
        remote = RemoteFolder.listed(model)
        copy = remote.keep(weights=False)
        return Checkpoint(str(copy), None, _config(copy / "config.json"), copy, remote)
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(f"{folder} is a folder, which has no revisions", "leave out the setting revision")
        refuse_pointers_in(folder, ConfigError)
        return Checkpoint(str(folder.resolve()), None, _config(folder / "config.json"), folder.resolve())
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise ConfigError(f"there is no model folder {model}", "give a folder with config.json, or a hub id")
    from huggingface_hub import HfApi, hf_hub_download

    try:
        offline = not hub_answers(HfApi().endpoint)
        file = Path(hf_hub_download(model, "config.json", revision=revision, local_files_only=offline))
    except Exception as error:  # its own errors, requests' and OSError, all of which mean the same to a user
        raise ConfigError(
            f"the model {model} is neither on this machine nor to be had from the hub: {describe(error)[:200]}",
            f"'hf download {model}' on a machine with internet access, then give the folder",
        ) from None
    # the cache keeps a commit's files in snapshots/<commit>
    return Checkpoint(model, file.parent.name, _config(file), file.parent)


@reads(ConfigError)
def _config(file: Path) -> dict[str, Any]:
    fix = "give a checkpoint saved by transformers"
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read: {describe(error)}", fix) from None
    if not isinstance(config, dict):
        raise ConfigError(f"{file} is no model's configuration", fix)
    refuse_unconverted(config, str(file.parent))
    return config


@cache
def _folder_hash(folder: str) -> str:
    """Hash what decides answers: every file but hidden ones and documents, by name and content."""
    digest = hashlib.sha256()
    for file in sorted(Path(folder).iterdir()):
        if file.is_file() and not file.name.startswith(".") and file.suffix not in (".md", ".txt", ".log"):
            digest.update(f"{file.name}:{storage.sha256(file)}\n".encode())
    return digest.hexdigest()


@dataclass
class Chat:
    """A processor and how frames are shown to it: `video`, one video of all frames, or `images`, one by one.

    In a video each frame stands `repeat_frames` times.
    """

    processor: Any
    frames_as: Literal["video", "images"]
    template: str | None
    repeat_frames: int = 1
    # Tokenizers pad by a state of their own, which threads must not change under each other.
    _tokenizing: Any = field(default_factory=threading.Lock, repr=False)

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return getattr(self.processor, "tokenizer", self.processor)

    def text(self, request: Request) -> str:
        """Return the prompt with one placeholder for a video or for each image, as the chat template writes it."""
        return self._written(self._messages(request), add_generation_prompt=True)

    def finished(self, request: Request, answer: str) -> str:
        """Return the prompt with its answer, as the chat template writes a turn that is over."""
        said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        return self._written([*self._messages(request), said], add_generation_prompt=False)

    def _messages(self, request: Request) -> list[dict[str, Any]]:
        content = [{"type": "text", "text": request.prompt}]
        if request.frames is not None:
            count = 1 if self.frames_as == "video" else len(request.frames.pixels)
            content = [{"type": self.frames_as.removesuffix("s")}] * count + content
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if request.system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": request.system}]})
        return messages

    def _written(self, messages: list[dict[str, Any]], **options: Any) -> str:
        more = {} if self.template is None else {"chat_template": self.template}
        return self.processor.apply_chat_template(messages, tokenize=False, **options, **more)

    def shown(self, frames: Frames) -> Frames:
        """Return frames as they stand in a prompt."""
        if self.repeat_frames == 1 or self.frames_as == "images":
            return frames
        indices = tuple(index for index in frames.indices for _ in range(self.repeat_frames))
        return replace(frames, pixels=frames.pixels.repeat(self.repeat_frames, axis=0), indices=indices)

    def special_tokens(self, text: str) -> bool:
        """Tell whether the tokenizer still has to add its own, because the template did not write them."""
        begin = self.tokenizer.bos_token
        return not (begin and text.startswith(begin))

    def ids(self, text: str) -> list[int]:
        """Return a prompt's tokens, placeholders not yet widened to the size of what they stand for."""
        with self._tokenizing:
            return self.tokenizer(text, add_special_tokens=self.special_tokens(text))["input_ids"]

    def inputs(self, requests: Sequence[Request], options: Mapping[str, Any]) -> Any:
        """Return the processor's output, padded on the left, for requests whose frames are all alike or none.

        `options` are the processor's own, for frames.
        """
        texts = [self.text(request) for request in requests]
        frames = [self.shown(request.frames) for request in requests if request.frames is not None]
        visual = {**frames_for_processor(frames, self.frames_as), **options} if frames else {}
        special = all(self.special_tokens(text) for text in texts)
        with self._tokenizing:
            return self.processor(
                text=texts, padding=True, padding_side="left", add_special_tokens=special, return_tensors="pt", **visual
            )

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of an answer's tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def count(self, request: Request, options: Mapping[str, Any]) -> int:
        """Return the tokens of a request's prompt, what stands for frames included."""
        return int(self.inputs([request], options)["attention_mask"].sum())


def load_chat(
    checkpoint: Checkpoint,
    frames_as: FramesAs = "auto",
    template: str | None = None,
    trust_remote_code: bool = False,
    repeat_frames: int = 1,
) -> Chat:
    """Load the checkpoint's processor. Raises `ConfigError` when it has none that takes frames, or no chat template."""
    from transformers import AutoProcessor

    make_known(checkpoint.config)
    try:
        processor = AutoProcessor.from_pretrained(
            checkpoint.name, revision=checkpoint.revision or "main", trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise ConfigError(
            f"the processor of {checkpoint.name} cannot be loaded: {describe(error)[:300]}", remote_code(error)
        ) from None
    takes_video = getattr(processor, "video_processor", None) is not None
    if frames_as == "auto":
        frames_as = "video" if takes_video else "images"
    if frames_as == "video" and not takes_video:
        raise ConfigError(f"{checkpoint.name} takes no video", "show frames one by one: settings frames_as=images")
    own_template = getattr(getattr(processor, "tokenizer", None), "chat_template", None)
    if template is None and not (getattr(processor, "chat_template", None) or own_template):
        raise ConfigError(
            f"{checkpoint.name} has no chat template",
            "give one in Jinja: settings chat_template, see video-llava's card",
        )
    chat = Chat(processor, frames_as, template, repeat_frames)
    if chat.tokenizer.pad_token is None:
        chat.tokenizer.pad_token = chat.tokenizer.eos_token
    return chat


def frames_for_processor(frames: Sequence[Frames], frames_as: str) -> dict[str, Any]:
    """Return the arguments with which a transformers processor takes frames as they are, one clip a prompt."""
    if frames_as == "images":
        return {"images": [pictures(clip) for clip in frames]}
    metadata = [
        {name: value for name, value in clip.video_metadata().items() if name not in _NOT_METADATA} for clip in frames
    ]
    return {
        "videos": [clip.pixels for clip in frames],
        "video_metadata": metadata,
        "do_sample_frames": False,
        "input_data_format": "channels_last",  # of a picture 1 or 3 pixels high it would be guessed otherwise
    }


def pictures(frames: Frames) -> list[Any]:
    """Return frames one by one, as the Pillow images that processors take."""
    from PIL import Image

    return [Image.fromarray(pixels) for pixels in frames.pixels]


def remote_code(error: Exception) -> str | None:
    """Return what to do about an error that means the repository has code of its own to run."""
    if "trust_remote_code" in str(error):
        return "read the repository's code, then allow it with --trust-remote-code"
    return None


@dataclass
class LocalEngine(Engine):
    """A checkpoint: a folder or a hub id, at `revision`.

    `dtype`: auto is what the weights are stored in. `context`: tokens of prompt and answer, at most what the model was
    made for. `chat_template`: Jinja, for models without one. `repeat_frames`: how often each frame stands in a video: 2
    gives each a time of its own where the model merges frames in pairs. `processor`: options of the model's processor,
    such as {size: {longest_edge: 200704}}. `trust_remote_code` runs the repository's own code: read it first.
    """

    model: str
    revision: str | None = None
    dtype: str = "auto"
    context: int | None = None
    frames_as: FramesAs = "auto"
    chat_template: str | None = None
    repeat_frames: int = 1
    processor: Mapping[str, Any] = field(default_factory=dict)
    trust_remote_code: bool = False

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Where the model's files are."""
        return find(self.model, self.revision)

    @cached_property
    def chat(self) -> Chat:
        """The model's processor and chat template."""
        if self.repeat_frames < 1:
            raise ConfigError(f"repeat_frames must be at least 1, not {self.repeat_frames}")
        options = self.frames_as, self.chat_template, self.trust_remote_code, self.repeat_frames
        return load_chat(self.checkpoint, *options)

    @property
    def stored_as(self) -> str:
        """The number format that the model runs in."""
        return self.checkpoint.dtype if self.dtype == "auto" else self.dtype

    @cached_property
    def _uncountable(self) -> str:
        """Why the model's own processor cannot count tokens on this machine, or ""."""
        try:
            _ = self.chat
        except MicrogError as error:
            return error.what
        return ""

    @property
    def counting(self) -> str:
        """By the model's own processor, where its files are on this machine."""
        if self._uncountable:
            return f"by OpenAI's rule for pictures, as the model is not here: {self._uncountable}"
        return "by the model's own processor"

    @property
    def counts_slowly(self) -> bool:
        """Whether the processor counts."""
        return not self._uncountable

    def estimate(self, request: Request, sampling: Sampling, batch: bool = False) -> Estimate:
        """Return the tokens of a request (see `counting`), and the longest answer; no dollars."""
        if self._uncountable:
            return super().estimate(request, sampling, batch)
        return Estimate(self.chat.count(request, self.processor) + sampling.max_tokens, 0.0)

    def gpu_memory(self, tokens: int, frames: tuple[int, int, int], place: Placement) -> GpuMemory | None:
        """Return what a copy needs of each of its GPUs, where the model's files are on this machine."""
        if self._uncountable:  # then its files are not here
            return None
        model = self.checkpoint
        weights = model.weights_gb
        if weights is None:
            return None
        sizes = ModelSizes(
            weights_gb=weights,
            cache_bytes=model.kv_bytes_per_token(2),
            text=model.text_config,
            vision=model.config.get("vision_config") or {},
        )
        spread = {"tensor_parallel": place.tensor_parallel, "pipeline_parallel": place.pipeline_parallel}
        count, width, height = frames
        return gpu_memory(sizes, tokens, (count * self.repeat_frames, width, height), **spread)

    def _fingerprint_fields(self, **more: Any) -> dict[str, Any]:
        """Return the checkpoint's content, number format, how frames are shown, and what of `more` is set."""
        own = {"frames_as": self.frames_as, "chat_template": self.chat_template, "processor": dict(self.processor)}
        own |= {"repeat_frames": self.repeat_frames if self.repeat_frames > 1 else None}
        kept = {name: value for name, value in {**own, **more}.items() if value}
        return {**self.checkpoint.identity, "dtype": self.stored_as, **kept}
