"""From a repository's folder to its model: classes out of its own files, weights without unpickling anything.

transformers' own `from_pretrained` is not used, see "plain-loading" in `adaptations`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from microg.errors import ConfigError, describe
from microg.locks import lock
from microg.models.vlm.engines.checkpoint import Checkpoint
from microg.models.vlm.engines.repository.adaptations import adapt_language_model, add_names, fill_config
from microg.models.vlm.engines.repository.consent import RepositoryCode
from microg.reading import reads

_FILES = ("*.py", "*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_SHOWN = 3


def folder_of(checkpoint: Checkpoint) -> Path:
    """Return the folder with all files of a checkpoint on this machine; what is not here comes from the hub."""
    if checkpoint.revision is None:
        return Path(checkpoint.source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(checkpoint.name, revision=checkpoint.revision, allow_patterns=list(_FILES)))
    except Exception as error:  # the hub's own errors, those of http and OSError
        raise ConfigError(
            f"the files of {checkpoint.name} are neither here nor to be had from the hub: {describe(error)[:200]}",
            f"'hf download {checkpoint.name}' on a machine with internet access, then give the folder",
        ) from None


def load(
    folder: Path, code: RepositoryCode, needed: Sequence[str], unused: Sequence[str], dtype: Any, device: Any
) -> tuple[Any, Any]:
    """Return the model and the tokenizer of a repository.

    `needed` are adaptations, `unused` beginnings of names of weights that the code has no place for. Raises
    `ConfigError` when the code cannot be run or the weights are not its own.
    """
    from transformers.initialization import no_init_weights

    try:
        with no_init_weights():
            model = make_model(folder, code, needed, dtype)
        tokenizer = load_tokenizer(folder)
    except Exception as error:
        raise ConfigError(
            f"the code of {code.model} cannot be run: {describe(error)[:400]}",
            "where it names packages, 'uv pip install' them; docs/capabilities/vlm.md says what was tried",
        ) from error
    _fill(model, folder, unused)
    adapt_language_model(model.language_model, needed)
    return model.to(device).eval(), tokenizer


def make_model(folder: Path, code: RepositoryCode, needed: Sequence[str], dtype: Any) -> Any:
    """Return the model that the code makes from config.json, in memory of its own; its weights mean nothing yet."""
    import torch
    from transformers.utils import logging

    add_names(needed)
    config_class, model_class = (_class(code.classes[name], folder) for name in ("AutoConfig", "AutoModel"))
    config = config_class(**json.loads((folder / "config.json").read_text("utf-8")))
    fill_config(config, needed)
    before, loudness = torch.get_default_dtype(), logging.get_verbosity()
    torch.set_default_dtype(dtype)
    logging.set_verbosity_error()  # it warns of what "generation-mixin" is for
    try:
        return model_class(config)
    finally:
        torch.set_default_dtype(before)
        logging.set_verbosity(loudness)


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer; of the repository's own classes the first, which its authors use.

    transformers 5 would take a class of its own for one that it knows by the checkpoint's other files.
    """
    from transformers import AutoTokenizer

    file = folder / "tokenizer_config.json"
    named = json.loads(file.read_text("utf-8")).get("auto_map", {}).get("AutoTokenizer") if file.is_file() else None
    own = next((each for each in ([named] if isinstance(named, str) else named or []) if each), None)
    if own is None:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    return _class(own, folder).from_pretrained(folder)


def _class(name: str, folder: Path) -> Any:
    """Return a class of the repository; its files are first copied to a folder that all processes import from."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module
    from transformers.utils.hub import HF_MODULES_CACHE

    shared = Path(HF_MODULES_CACHE)
    shared.mkdir(parents=True, exist_ok=True)
    with lock(shared / ".microg.lock"):
        return get_class_from_dynamic_module(name, str(folder))


def _fill(model: Any, folder: Path, unused: Sequence[str]) -> None:
    """Copy the weights of all files into the model. Raises `ConfigError` for what is missing or left over."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{folder} holds no *.safetensors", "other files of weights may run code when they are read")
    missing, left = set(model.state_dict()), set[str]()
    for file in files:
        names, unknown = _fill_from(file, model)
        missing -= names
        left |= {name for name in unknown if not name.startswith(tuple(unused))}
    for what, names in (("lacks", missing), ("has more than the code takes:", left)):
        if names:
            shown = ", ".join(sorted(names)[:_SHOWN])
            raise ConfigError(
                f"{folder.name} {what} {len(names)} weights, such as {shown}", "code and weights belong together"
            )


@reads(ConfigError)
def _fill_from(file: Path, model: Any) -> tuple[set[str], list[str]]:
    """Copy one file's weights; returns all names in it, and those that the model has no place for."""
    from safetensors.torch import load_file

    weights = load_file(file)
    return set(weights), model.load_state_dict(weights, strict=False).unexpected_keys
