"""Reading weight files of any format by what is in them, without running what a pickle asks for."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from microg import storage
from microg.errors import WeightsError
from microg.models.har.checkpoints import caffe2
from microg.reading import DAMAGED_ZIP, check_expansion, reads

FORMAT = "microg-har-weights"
_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number before torch 1.6
_CONTAINERS = ("state_dict", "model_state", "model_state_dict", "model")
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # DistributedDataParallel, torch.compile


@dataclass(frozen=True)
class StoredWeights:
    """Named tensors of a file; `container` says what kind of file, `metadata` is what our own format adds."""

    path: str
    container: str
    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)


@reads(WeightsError)
def read_weights(path: str) -> StoredWeights:
    """Read a weights file: torch (zip or legacy; PySlowFast, hub, torchvision, ours) or caffe2 pickle.

    The kind is told by content; names lose the prefixes of DistributedDataParallel and torch.compile. Only tensors and
    plain values are unpickled. Raises `WeightsError`.
    """
    try:
        data = storage.read_bytes(path)
    except FileNotFoundError:
        raise WeightsError(f"weights file {path} is not there") from None
    except IsADirectoryError:
        raise WeightsError(f"{path} is a folder, not a weights file") from None
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error}") from error
    if not data:
        raise WeightsError(f"weights file {path} is empty", "fetch it again")
    head = data[:200].lstrip()
    if head[:1] == b"<":
        raise WeightsError(f"{path} is a web page, not a weights file", "the download failed; fetch the file itself")
    if data.startswith((b"PK\x03\x04", _TORCH_LEGACY)):
        return _read_torch(path, data)
    return _read_caffe2(path, data)


def _read_torch(path: str, data: bytes) -> StoredWeights:
    is_zip = data.startswith(b"PK")
    if is_zip:
        _check_zip(path, data)
    if is_zip and not zipfile.is_zipfile(io.BytesIO(data)):
        raise WeightsError(f"weights file {path} is cut off ({len(data)} bytes)", "fetch it again")
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"(?:GLOBAL|callable|function|class) '?([\w.]+\.[\w.]+)", str(error)[:500])
        raise _unsafe(path, f"it asks for {asked[1]}" if asked else "it holds more than tensors") from error
    except Exception as error:  # torch raises anything from EOFError to RuntimeError on damaged files
        raise WeightsError(f"weights file {path} is damaged: {error}", "fetch it again") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not named tensors")
    inner = next((content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), content)
    tensors = {_WRAPPERS.sub("", str(name)): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(str(key) for key in list(content)[:8]) or "none"
        raise WeightsError(f"{path} holds no named tensors; its keys: {keys}")
    ours = content.get("format") == FORMAT
    metadata = dict(content.get("metadata", {})) if ours else {}
    return StoredWeights(path, "our own file" if ours else "torch file", tensors, metadata)


def _check_zip(path: str, data: bytes) -> None:
    """Refuse an archive whose members would grow: torch stores tensors as they are."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                check_expansion(member, path, WeightsError)
    except DAMAGED_ZIP as error:
        raise WeightsError(f"weights file {path} is damaged: {error}", "fetch it again") from error


def _read_caffe2(path: str, data: bytes) -> StoredWeights:
    try:
        blobs = caffe2.read_blobs(data)
        tensors = {name: torch.from_numpy(blob.astype(blob.dtype.newbyteorder("="))) for name, blob in blobs.items()}
    except pickle.UnpicklingError as error:
        if "asks for" not in str(error):
            raise WeightsError(f"{path} is no weights file, or is cut off: {error}", "fetch it again") from error
        raise _unsafe(path, str(error)) from error
    except Exception as error:  # a damaged pickle fails in any way
        raise WeightsError(
            f"{path} is neither a torch file nor a caffe2 pickle, or is damaged: {error}", "fetch it again"
        ) from error
    if not tensors:
        raise WeightsError(f"{path} holds no arrays")
    return StoredWeights(path, "caffe2 pickle", tensors)


def _unsafe(path: str, asked: str) -> WeightsError:
    return WeightsError(
        f"weights file {path} is refused: {asked}, and unpickling that could run code",
        "use a file that holds tensors only; whoever made this one can save its state_dict",
    )
