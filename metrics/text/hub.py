"""Encoders by name: the local cache first, then one question to the model hub, and only then a download.

Without a network the hub's client tries five times and sleeps in between, half a minute in all, to say what one attempt
says as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from microg.errors import describe

T = TypeVar("T")
_ANSWER_S = 5.0


def cache_first(load: Callable[[bool], T], model: str, *, local_files_only: bool) -> T:
    """Return `load(True)`, from local files only; where those are not there, `load(False)`, if the hub has `model`.

    What is in the cache is used as it is, without asking for a newer one. Raises what `load` raises, and `OSError` when
    the hub does not answer within seconds or has no such model.
    """
    try:
        return load(True)
    except (OSError, ValueError):
        if local_files_only or Path(model).exists() or not _on_hub(model):
            raise
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
