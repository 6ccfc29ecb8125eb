"""Text encoders, with bits that depend on the text alone, and the state of the metrics that compare their arrays.

A text is padded to the next multiple of eight tokens and encoded in a batch whose shape follows from that length; what
is missing in a batch is filled up. The kernels that a device picks depend on shapes, so that a text gets the same bits
whatever is encoded beside it: shards, order and resumed runs do not matter (the device, and running out of its memory,
do).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from microg import storage
from microg.config import Config, load_config
from microg.errors import MetricError
from microg.metrics.text.items import Items, check
from microg.metrics.text.state import MeanState
from microg.system.folders import RemoteFolder

_STEP = 8
_MAX_ROWS = 64
_PAIRS = 512  # compared at once, so that few arrays are held
_BATCH_TOKENS = {"cpu": 256, "cuda": 16_384}
_KEY = b"encoder"  # in the metadata of a state's table


class EncoderConfig(Config):
    """Which encoder embeds texts, and where it runs."""

    volatile: ClassVar[frozenset[str]] = frozenset({"device", "batch_tokens", "local_files_only"})
    model: str = Field(description="Encoder: a folder, also at a URI, or a name on the model hub.")
    max_tokens: int = Field(ge=3, description="Tokens of a text that are read.")
    device: str | None = Field(default=None, description="Device of the encoder; without it a GPU if there is one.")
    batch_tokens: int = Field(
        default=0,
        ge=0,
        description="Tokens of a batch, halved while they do not fit in the device's memory; 0 takes the device's "
        "default.",
    )
    local_files_only: bool = Field(default=False, description="Ask no model hub, only the cache on this machine.")


@dataclass(frozen=True)
class EncoderInfo:
    """What made scores: short name, signature to print, whether it is the paper's encoder, and which scores it gives.

    `published` is found out by known answers, not by name: weights under the right name may be others.
    """

    name: str
    signature: str
    published: bool
    scores: tuple[str, ...]

    def values(self) -> tuple[str, ...]:
        """Return the names of the scores: an encoder that is not the paper's is part of them.

        >>> EncoderInfo("mine", "", False, ("sbert",)).values()
        ('sbert[mine]',)
        """
        return self.scores if self.published else tuple(f"{name}[{self.name}]" for name in self.scores)

    def to_json(self) -> str:
        """Return the form stored with a state's table."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> EncoderInfo:
        """Undo `to_json`."""
        stored = json.loads(text)
        return cls(**stored | {"scores": tuple(stored["scores"])})


C = TypeVar("C", bound=EncoderConfig)


def config_of(kind: type[C], settings: Mapping[str, Any]) -> C:
    """Return a configuration of the settings. Raises `ConfigError` naming a key."""
    return load_config(kind, overrides=[f"{key}={json.dumps(value)}" for key, value in settings.items()])


Forward = Callable[[Any, Any], Any]


class Encoder:
    """A loaded model.

    tokenize: text -> token ids with special tokens, not cut. forward: ids and mask (b, t) -> (b, ...) tensor, of which
    `pick` takes what belongs to a text of so many tokens. Texts beyond `max_tokens` are cut, keeping the last token.
    """

    def __init__(
        self,
        config: EncoderConfig,
        tokenize: Callable[[Sequence[str]], list[list[int]]],
        forward: Forward,
        *,
        pad_id: int,
        pick: Callable[[np.ndarray, list[int]], np.ndarray],
    ) -> None:
        self.config, self._tokenize, self._forward, self._pad_id, self._pick = config, tokenize, forward, pad_id, pick
        self.device = pick_device(config.device)
        self._batch_tokens = config.batch_tokens or _BATCH_TOKENS[self.device.partition(":")[0]]

    def encode(self, texts: Sequence[str]) -> list[tuple[np.ndarray, bool]]:
        """Return for each text its array, and whether it was longer than the encoder takes."""
        full = self._tokenize(texts)
        limit = self.config.max_tokens
        ids = [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in full]
        arrays: list[np.ndarray | None] = [None] * len(ids)
        for places, length in _batches([len(row) for row in ids]):
            for start, rows in self._encoded([ids[place] for place in places], length):
                for place, row in zip(places[start:], rows, strict=False):
                    arrays[place] = self._pick(row, ids[place])
        return [(array, len(row) > limit) for array, row in zip(arrays, full, strict=True) if array is not None]

    def _encoded(self, ids: list[list[int]], length: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (place of the first, rows) of batches of texts that share a padded length."""
        import torch

        start = 0
        while start < len(ids):
            number = max(1, min(_MAX_ROWS, self._batch_tokens // length))
            part = ids[start : start + number]
            try:
                yield start, self._run(part, number, length)[: len(part)]
            except torch.OutOfMemoryError as error:
                if number == 1:
                    raise MetricError(
                        f"{self.config.model} with {length} tokens does not fit in the memory of {self.device}",
                        "run the encoder on another device, with --set and its device key",
                    ) from error
                self._batch_tokens = number // 2 * length
                continue
            start += number

    def _run(self, ids: list[list[int]], number: int, length: int) -> np.ndarray:
        import torch

        batch = np.full((number, length), self._pad_id, np.int64)
        mask = np.zeros((number, length), np.int64)
        for row in range(number):
            tokens = ids[row] if row < len(ids) else ids[0]
            batch[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        with torch.inference_mode():
            found = self._forward(torch.from_numpy(batch).to(self.device), torch.from_numpy(mask).to(self.device))
            return found.float().cpu().numpy()


class TextCache:
    """Encoded texts, the least recently used dropped beyond `limit_mb`: frequent answers are encoded once."""

    def __init__(self, encoder: Encoder, limit_mb: int = 512) -> None:
        self._encoder, self._limit = encoder, limit_mb * 2**20
        self._known: OrderedDict[str, tuple[np.ndarray, bool]] = OrderedDict()
        self._bytes = 0

    def get(self, texts: Sequence[str]) -> dict[str, tuple[np.ndarray, bool]]:
        """Return the array of each text, and whether it was cut."""
        wanted = dict.fromkeys(texts)
        missing = [text for text in wanted if text not in self._known]
        found = dict(zip(missing, self._encoder.encode(missing), strict=True)) if missing else {}
        result = {text: found.get(text) or self._known[text] for text in wanted}
        for text, value in result.items():
            if text not in self._known:
                self._bytes += value[0].nbytes
            self._known[text] = value
            self._known.move_to_end(text)
        while self._bytes > self._limit and self._known:
            self._bytes -= self._known.popitem(last=False)[1][0].nbytes
        return result


class PairScorer:
    """An encoder that compares predictions with references.

    compare: arrays of a prediction and a reference -> `width` values. Of several references each value's best counts;
    a text without anything but whitespace scores 0.
    """

    def __init__(
        self,
        encoder: Encoder,
        compare: Callable[[np.ndarray, np.ndarray], Sequence[float]],
        width: int,
        info: EncoderInfo,
    ) -> None:
        self._cache, self._compare, self._width, self.info = TextCache(encoder), compare, width, info

    def knows(self, pairs: Sequence[tuple[str, str, float]], place: int, within: float) -> bool:
        """Return whether value `place` of each (prediction, reference, value) is the given one."""
        said, true, values = zip(*pairs, strict=True)
        found = self.measure(check(range(len(pairs)), said, true))[:, place]
        return bool(np.abs(found - values).max() <= within)

    def measure(self, items: Items) -> np.ndarray:
        """Return each item's values, and how many of its texts were cut (n, k + 1) float64."""
        said, true = items.predictions, items.references
        result = np.zeros((len(items), self._width + 1))
        order = sorted(range(len(items)), key=lambda place: (len(said[place]), said[place], place))
        for start in range(0, len(order), _PAIRS):
            places = order[start : start + _PAIRS]
            texts = (text for place in places for text in (said[place], *true[place]))
            known = self._cache.get([text for text in texts if text.strip()])
            for place in places:
                result[place] = self._item(said[place], true[place], known)
        return result

    def _item(self, said: str, true: Sequence[str], known: Mapping[str, tuple[np.ndarray, bool]]) -> np.ndarray:
        cut = float(sum(known[text][1] for text in (said, *true) if text in known))
        pairs = [self._compare(known[said][0], known[text][0]) for text in true if said in known and text in known]
        values = np.max(pairs, axis=0) if pairs else np.zeros(self._width)
        return np.r_[values, cut]


class EncoderState(MeanState):
    """Values of items, and how many of an item's texts were longer than the encoder takes (`over_length`).

    Scores have their plain names when the paper's encoder made them; else the encoder's name is part of theirs, as in
    `sbert[my-encoder]`. States made with different encoders do not merge.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._settings = settings
        self.info: EncoderInfo | None = None

    @classmethod
    def empty(cls, **settings: Any) -> Self:
        """Return a state without items; the settings say which encoder `update` uses."""
        return cls(**settings)

    @classmethod
    def scorer(cls, **settings: Any) -> PairScorer:
        """Return this process's encoder for the settings; it is loaded when first asked for."""
        raise NotImplementedError

    @property
    def values(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Names of the scores; none while there are no items."""
        return self.info.values() if self.info else ()

    def measure(self, items: Items) -> np.ndarray:
        """Return values and numbers of cut texts (n, k)."""
        scorer = self.scorer(**self._settings)
        self.made_by(scorer.info)
        return scorer.measure(items)

    def made_by(self, info: EncoderInfo) -> Self:
        """Say which encoder made the values that are added. Raises `MetricError` when it is another one than before."""
        if self.info is not None and self.info != info:
            raise MetricError(
                f"scores of two encoders do not add up: {self.info.signature} and {info.signature}",
                "score all items with one encoder",
            )
        self.info = info
        return self

    def merge(self, other: Self) -> Self:
        """Add the items of another state; returns the state itself. Raises `MetricError` for another encoder."""
        if other.info is not None:
            self.made_by(other.info)
        return super().merge(other)

    def to_table(self) -> pa.Table:
        """Return the items once each, sorted by id; the schema's metadata holds the encoder."""
        table = super().to_table()
        return table if self.info is None else table.replace_schema_metadata({_KEY: self.info.to_json()})

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Return a state with the items, and the encoder, of `to_table`'s form."""
        state = super().from_table(table)
        stored = (table.schema.metadata or {}).get(_KEY)
        if stored is None and table.num_rows:
            raise MetricError("the table of scores does not say which encoder made them", "score these items again")
        return state.made_by(EncoderInfo.from_json(stored)) if stored else state

    def over_length(self) -> int:
        """Return how many items have a text that was longer than the encoder takes, and was cut."""
        return int((self.to_table()["over_length"].to_numpy() > 0).sum())


_loaded: dict[Callable[..., PairScorer], tuple[EncoderConfig, PairScorer]] = {}


def loaded(load: Callable[[C], PairScorer], config: C) -> PairScorer:
    """Return `load(config)`, this process's one: the last encoder of each kind is kept.

    An encoder at a URI is read from this node's copy.
    """
    if load not in _loaded or _loaded[load][0] != config:
        _loaded.pop(load, None)  # so that two are never in memory at once
        here = config
        if not storage.is_local(config.model):
            here = config.replaced(model=str(RemoteFolder.listed(config.model).keep()))
        _loaded[load] = (config, load(here))
    return _loaded[load][1]


def unload() -> None:
    """Forget this process's encoders, for their memory; they are loaded again when asked for."""
    _loaded.clear()


def pick_device(device: str | None) -> str:
    """Return the device to use: the given one, else a GPU, else the processor."""
    import torch

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen.partition(":")[0] not in _BATCH_TOKENS:
        raise MetricError(f"encoders do not run on device {chosen!r}", f"devices are {', '.join(_BATCH_TOKENS)}")
    return chosen


def _batches(lengths: Sequence[int]) -> Iterator[tuple[list[int], int]]:
    """Yield the places of texts that share a padded length, and that length, shortest first."""
    groups: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        groups.setdefault(-(-length // _STEP) * _STEP, []).append(place)
    for length in sorted(groups):
        yield groups[length], length
