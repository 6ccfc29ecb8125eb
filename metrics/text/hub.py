"""Encoders by name: the local cache first, then one question to the model hub, and only then a download.

Without a network the hub's client tries five times and sleeps in between, half a minute in all, to say what one attempt
says as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from microg.errors import WeightsError, describe
from microg.system import zoo

T = TypeVar("T")
_ANSWER_S = 5.0


def load_quietly(load: Callable[[bool], T], model: str, *, local_files_only: bool) -> T:
    """Load a model as `cache_first` does, without progress bars. Raises `WeightsError` where that fails."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        return cache_first(load, model, local_files_only=local_files_only)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"encoder {model} cannot be loaded: {reason}", "give a folder that holds it, or a name on the model hub"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)


def cache_first(load: Callable[[bool], T], model: str, *, local_files_only: bool) -> T:
    """Return `load(True)`, from local files only; where those are not there, `load(False)`, if the hub has `model`.

    What is in the cache is used as it is, without asking for a newer one, and encoders of the zoo are fetched as all of
    its weights are. Raises what `load` raises, `WeightsError`, and `OSError` when the hub does not answer within
    seconds or has no such model.
    """
    try:
        return load(True)
    except (OSError, ValueError):
        if local_files_only or Path(model).exists():
            raise
        name = zoo.known(model)
        try:
            there = _on_hub(model)
        except OSError as error:
            if name is None:
                raise
            raise zoo.unreachable(name, describe(error)) from error
        if not there:
            raise
        if name is not None:
            zoo.fetch(name)
            return load(True)
    return load(False)


def _on_hub(model: str) -> bool:
    """Return whether a download may be tried; False for what is no name on a hub."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    hub = HfApi()
    try:
        hub.model_info(model, timeout=_ANSWER_S)
    except HFValidationError:
        return False
    except RepositoryNotFoundError as error:
        raise OSError(f"the model hub {hub.endpoint} has no {model}, or shows it to others only") from error
    except HfHubHTTPError:
        return True  # it answers: the download may succeed, and says why if not
    except Exception as error:  # whatever the client's library calls a missing network
        raise OSError(
            f"it is not in the local cache, and the model hub {hub.endpoint} cannot be reached ({describe(error)})"
        ) from error
    return True


def short_name(model: str) -> str:
    """Return the last part of a model's name or folder.

    >>> short_name("sentence-transformers/all-MiniLM-L6-v2")
    'all-MiniLM-L6-v2'
    """
    return Path(model).name or model


def signature(metric: str, model: str, folder: Path) -> str:
    """Return how a metric's signature begins: the model, and a hash of its weights where they lie in `folder`."""
    if not folder.is_dir():
        return f"{metric} model={short_name(model)}"
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{metric} model={short_name(model)} weights={digest.hexdigest()[:12]}"
