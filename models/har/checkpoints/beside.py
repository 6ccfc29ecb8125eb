"""What trainers put beside the weights of a torch file, read as nothing: none of its own code runs.

torch's safe reader refuses a file for one such object. Here a class of ours that keeps nothing stands in for each, so
that the tensors beside it can be read; whatever is not listed is refused as before.
"""

from __future__ import annotations

import io
import threading
from typing import Any

import torch


class _Nothing:
    """Stands for an object of another program, made with any arguments."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _new_dict(*_: object) -> dict[Any, Any]:
    """Stands for `collections.defaultdict`."""
    return {}


_READ_AS_NOTHING = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{kind}" for kind in ("bool_", "float32", "float64", "int32", "int64", "str_")),
    *(
        f"pathlib.{local}{kind}"
        for local in ("", "_local.")
        for kind in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
    *(f"builtins.{kind}" for kind in ("int", "float", "bool", "str", "dict", "list")),
    # mmengine's log of losses, which names its own methods
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",
)
_STAND_INS: list[Any] = [*((_Nothing, name) for name in _READ_AS_NOTHING), (_new_dict, "collections.defaultdict")]
# torch's list of allowed names is of the whole process
_ONE_AT_A_TIME = threading.Lock()


def load_tensors(data: bytes) -> Any:
    """Return what a torch file holds, of tensors and plain values. Raises `pickle.UnpicklingError` as torch does."""
    with _ONE_AT_A_TIME, torch.serialization.safe_globals(_STAND_INS):
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
