"""The decoders of clips by name; a decoder's module is imported when a run names it."""

from __future__ import annotations

from functools import cache
from typing import Annotated

from pydantic import AfterValidator

from microg.errors import ConfigError
from microg.models.video.decoders.base import ClipDecoder
from microg.registry import Registry

DECODERS = Registry(
    "decoder",
    {
        "pyav": "microg.models.video.decoders.pyav:PyAv",
        "torchcodec": "microg.models.video.decoders.torchcodec_reader:TorchCodec",
        "decord": "microg.models.video.decoders.decord_reader:Decord",
        "nvdec": "microg.models.video.decoders.nvdec:NvDec",
    },
)
# What `auto` means: the fastest for whole clips and for chosen frames (`benchmarks/decoders.py`), and the only one that
# reads every file right.
BEST = "pyav"


def _known(name: str) -> str:
    if name != "auto":
        DECODERS.find(name)
    return name


DecoderName = Annotated[str, AfterValidator(_known)]
DECODER = (
    f"What decodes clips: auto, {', '.join(DECODERS)}, or module:object of your own. auto is {BEST}; the others read "
    "ordinary clips only, to the same pixels (nvdec: the last digit differs), and refuse others by name."
)


def decoder_of(name: str) -> str:
    """Return the name of the decoder that `auto`, or another name, means here."""
    return BEST if name == "auto" else name


def require_decoder(name: str) -> str:
    """Return the name of the decoder of decoding tasks.

    Raises `ConfigError` where there is none, this machine cannot use it, or it needs a GPU, which such tasks lack.
    """
    if decoder_of(name) == "nvdec":
        raise ConfigError("nvdec decodes beside the detector of 'microg curate' alone", "use --decoder pyav")
    open_decoder(name)
    return decoder_of(name)


@cache
def open_decoder(name: str) -> ClipDecoder:
    """Return the decoder called `name`. Raises `ConfigError` where there is none, or this process cannot use it."""
    decoder: ClipDecoder = DECODERS.load(decoder_of(name))()
    decoder.check()
    return decoder
