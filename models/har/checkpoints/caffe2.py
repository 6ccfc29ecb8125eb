"""Caffe2 weights, as the video model zoo ships them: a pickle of `{"blobs": {name: array}}` written by Python 2."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np


class _Dtype:
    """Stands for `numpy.dtype` in a pickle: it keeps what the pickle says, and nothing of numpy is called with it."""

    def __init__(self, name: object = "", *_: object) -> None:
        self._name, self._order = _text(name), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = _text(state[1])

    def numeric(self) -> np.dtype | None:
        """Return the type of numbers, or None for any other."""
        plain = re.fullmatch("[fiu][1248]", self._name) and self._name != "f1" and self._order in ("<", ">", "=", "|")
        return np.dtype(self._order + self._name) if plain else None


class _Array:
    """Stands for `numpy.ndarray` in a pickle; `array` is None where it does not hold plain numbers.

    numpy's own `__setstate__` trusts what it is given: a damaged type ends the process in native code.
    """

    array: np.ndarray | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, by_columns, raw = state[-4:]
        kind = dtype.numeric() if isinstance(dtype, _Dtype) else None
        data = raw.encode("latin1") if isinstance(raw, str) else raw  # as Python 2 wrote bytes
        if kind is not None and isinstance(data, bytes):
            self.array = np.frombuffer(data, kind).reshape(shape, order="F" if by_columns else "C")


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _new_array(*_: object) -> _Array:
    """Stands for numpy's `_reconstruct`, and for `scalar`, whose value nobody needs."""
    return _Array()


# What an array is rebuilt with; everything else in a pickle is refused before it is even looked up.
_SAFE = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    **{
        (f"numpy.{core}.multiarray", name): _new_array
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
}
_SUFFIXES = {"w": "weight", "s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
_SKIPPED = re.compile(r"(^|/)(lr|model_iter)$|_momentum$")
# Blob name without suffix -> PySlowFast name without suffix; p is the pathway.
_GRAMMAR: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"pred", "head.projection"),
        (r"conv1", "s1.pathway{p}_stem.conv"),
        (r"res_conv1_bn", "s1.pathway{p}_stem.bn"),
        (r"pool1_subsample(?P<bn>_bn)?", "s1_fuse.{fuse}"),
        (r"res(?P<s>\d+)_\d+_branch2c_bn_subsample(?P<bn>_bn)?", "s{s}_fuse.{fuse}"),
        (r"res(?P<s>\d+)_(?P<i>\d+)_branch1(?P<bn>_bn)?", "s{s}.pathway{p}_res{i}.branch1{bn}"),
        (
            r"res(?P<s>\d+)_(?P<i>\d+)_branch2(?P<letter>[abc])(?P<bn>_bn)?",
            "s{s}.pathway{p}_res{i}.branch2.{letter}{bn}",
        ),
        (r"nonlocal_conv(?P<s>\d+)_(?P<i>\d+)_bn", "s{s}.pathway{p}_nonlocal{i}.bn"),
        (r"nonlocal_conv(?P<s>\d+)_(?P<i>\d+)_(?P<kind>theta|phi|g|out)", "s{s}.pathway{p}_nonlocal{i}.conv_{kind}"),
    )
)


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed global; raises `pickle.UnpicklingError` for any other, which is never imported."""
        if (module, name) in _SAFE:
            return _SAFE[module, name]
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Return array bytes that Python 3 wrote as text in protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}")
    return text.encode("latin1")


def _check_memo(data: bytes) -> None:
    """Refuse a pickle that keeps a value under a number which makes the unpickler take gigabytes for its table."""
    for operations, (operation, argument, _) in enumerate(pickletools.genops(data), 1):
        kept = int(argument or 0) if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") else 0
        if not 0 <= kept <= 2 * operations + 256:
            raise pickle.UnpicklingError(f"it keeps a value under number {argument} after {operations} operations")


def read_blobs(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a caffe2 pickle by blob name, without optimizer state.

    Raises `pickle.UnpicklingError` for a pickle that holds anything but arrays, `ValueError` for one without blobs.
    """
    _check_memo(data)
    loads: Callable[..., Any] = _ArraysOnly(io.BytesIO(data), encoding="latin1").load
    content = loads()
    blobs = content.get("blobs") if isinstance(content, dict) else None
    if not isinstance(blobs, dict):
        raise ValueError("it is a pickle without 'blobs'")
    arrays = {str(name): blob.array for name, blob in blobs.items() if isinstance(blob, _Array)}
    return {name: array for name, array in arrays.items() if array is not None and not _SKIPPED.search(name)}


def pyslowfast_name(blob: str) -> str | None:
    """Return the PySlowFast name of a blob, or None where the grammar has none.

    A prefix `t_` marks the fast pathway; suffixes are w, s (weight), b (bias), rm and riv (running mean, variance).

    >>> pyslowfast_name("t_res3_1_branch2b_bn_riv")
    's3.pathway1_res1.branch2.b_bn.running_var'
    """
    stem, _, suffix = blob.rpartition("_")
    if suffix not in _SUFFIXES:
        return None
    pathway = int(stem.startswith("t_"))
    stem = stem.removeprefix("t_")
    for pattern, name in _GRAMMAR:
        found = pattern.fullmatch(stem)
        if found:
            groups = found.groupdict(default="")
            fuse = "bn" if groups.get("bn") else "conv_f2s"
            return f"{name.format(p=pathway, fuse=fuse, **groups)}.{_SUFFIXES[suffix]}"
    return None
