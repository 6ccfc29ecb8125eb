"""Reading weight files of any format by what is in them, without running what a pickle asks for."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from microg import storage
from microg.errors import FormatError, WeightsError
from microg.models.har.checkpoints import caffe2
from microg.models.har.checkpoints.beside import load_tensors
from microg.models.har.checkpoints.containers import choose
from microg.reading import DAMAGED_ZIP, check_expansion, gunzip, reads

FORMAT = "microg-har-weights"
_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number before torch 1.6
_GZIP, _TAR, _TAR_AT = b"\x1f\x8b", b"ustar", 257
_MOST_WRAPPINGS = 3


@dataclass(frozen=True)
class StoredWeights:
    """Named tensors of a file; `container` says what kind of file, `metadata` is what our own format adds.

    `key` is the name in the file under which they stood, "" for none; `others` are those of further weights.
    """

    path: str
    container: str
    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    others: tuple[str, ...] = ()


@reads(WeightsError)
def read_weights(path: str, key: str | None = None) -> StoredWeights:
    """Read a weights file: torch (zip or legacy; of any trainer), safetensors, or caffe2 pickle.

    The kind is told by content, also inside of gzip and tar. `key` names the weights to take where there are several
    (see `containers.choose`). Only tensors and plain values are unpickled. Raises `WeightsError`.
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
    data = _unwrapped(path, data)
    head = data[:200].lstrip()
    if head[:1] == b"<":
        raise WeightsError(f"{path} is a web page, not a weights file", "the download failed; fetch the file itself")
    if data.startswith((b"PK\x03\x04", _TORCH_LEGACY)):
        return _read_torch(path, data, key)
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        return _read_safetensors(path, data, key)
    return _read_caffe2(path, data)


def _unwrapped(path: str, data: bytes) -> bytes:
    """Return the file inside of gzip and tar."""
    for _ in range(_MOST_WRAPPINGS):
        if data.startswith(_GZIP):
            try:
                data = gunzip(data, path)
            except FormatError as error:
                raise WeightsError(error.what, error.fix) from error
        elif data[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
            data = _untarred(path, data)
        else:
            break
    return data


def _untarred(path: str, data: bytes) -> bytes:
    """Return the one file of a tar archive, which is never written anywhere."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            names = [member for member in archive if member.isfile() and not _is_aside(member.name)]
            if len(names) != 1:
                listed = ", ".join(member.name for member in names[:8])
                raise WeightsError(f"{path} holds {len(names)} files: {listed or 'none'}", "unpack it and name one")
            stream = archive.extractfile(names[0])
            return b"" if stream is None else stream.read()
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise WeightsError(f"weights file {path} is damaged: {error}", "fetch it again") from error


def _is_aside(name: str) -> bool:
    """Tell whether a member of an archive is what systems and people put beside the file: hidden, or a text."""
    return name.rpartition("/")[2].startswith(".") or name.lower().endswith((".txt", ".md", ".json", ".yaml", ".yml"))


def _read_torch(path: str, data: bytes, key: str | None) -> StoredWeights:
    is_zip = data.startswith(b"PK")
    if is_zip:
        _check_zip(path, data)
    if is_zip and not zipfile.is_zipfile(io.BytesIO(data)):
        raise WeightsError(f"weights file {path} is cut off ({len(data)} bytes)", "fetch it again")
    try:
        content = load_tensors(data)
    except pickle.UnpicklingError as error:
        asked = re.search(r"(?:GLOBAL|callable|function|class) '?([\w.]+\.[\w.]+)", str(error)[:500])
        raise _unsafe(path, f"it asks for {asked[1]}" if asked else "it holds more than tensors") from error
    except Exception as error:  # torch raises anything from EOFError to RuntimeError on damaged files
        raise WeightsError(f"weights file {path} is damaged: {error}", "fetch it again") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not named tensors")
    chosen = choose(content, path, key)
    ours = content.get("format") == FORMAT
    metadata = dict(content.get("metadata", {})) if ours else {}
    kind = "our own file" if ours else "torch file"
    return StoredWeights(path, kind, chosen.tensors, metadata, chosen.key, chosen.others)


def _read_safetensors(path: str, data: bytes, key: str | None) -> StoredWeights:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = load(data)
    except SafetensorError as error:
        raise WeightsError(f"weights file {path} is damaged: {error}", "fetch it again") from error
    chosen = choose(content, path, key)
    return StoredWeights(path, "safetensors file", chosen.tensors, {}, chosen.key, chosen.others)


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
