"""One network for several callers: what they hand in at the same time goes through it together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from microg.models.detection.network_backends import Engine


@dataclass(frozen=True, eq=False)
class _Part:
    """Images of one caller, at most a batch, and where it waits for their outputs."""

    images: np.ndarray
    outputs: Future[list[np.ndarray]] = field(default_factory=Future)


class SharedEngine:
    """An engine that several threads may call.

    Images that wait when the network is free share its next batch, which empty images fill up to `size`: a network
    sees one batch shape for each image shape, so no image's numbers depend on its company. Nobody is waited for: while
    a batch is under way, the next one gathers.

    Args:
        engine: The network; it is called by one thread.
        size: Images of a batch.
    """

    def __init__(self, engine: Engine, size: int) -> None:
        self._engine, self._size = engine, size
        self._waiting: deque[_Part] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="detector", daemon=True)
        self._thread.start()

    def __call__(self, images: np.ndarray) -> Sequence[np.ndarray]:
        """Return the output of each of (B, H, W, 3) images; raises what the network raises on these alone."""
        parts = [_Part(images[start : start + self._size]) for start in range(0, len(images), self._size)]
        with self._changed:
            if self._closed:
                raise RuntimeError("the detector has ended")
            self._waiting.extend(parts)
            self._changed.notify()
        return [output for part in parts for output in part.outputs.result()]

    def close(self) -> None:
        """End once all that waits is done; later calls raise `RuntimeError`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        for batch in self._batches():
            if not self._done(batch):
                for part in batch:  # whose images are at fault, each caller's alone tell
                    self._done([part])

    def _batches(self) -> Iterator[list[_Part]]:
        """Yield parts of one image shape that fit into a batch, the longest waiting first."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                batch, left = [], deque[_Part]()
                for part in self._waiting:
                    fits = sum(len(other.images) for other in (*batch, part)) <= self._size
                    alike = not batch or part.images.shape[1:] == batch[0].images.shape[1:]
                    (batch if fits and alike else left).append(part)
                self._waiting = left
            yield batch

    def _done(self, batch: list[_Part]) -> bool:
        """Put a batch through the network; False where it fails and more than one caller has images in it."""
        edges = np.cumsum([0, *(len(part.images) for part in batch)])
        try:
            images = np.zeros((self._size, *batch[0].images.shape[1:]), batch[0].images.dtype)
            images[: edges[-1]] = np.concatenate([part.images for part in batch])
            outputs = list(self._engine(images))
        except Exception as error:
            if len(batch) > 1:
                return False
            batch[0].outputs.set_exception(error)
            return True
        for part, start in zip(batch, edges, strict=False):
            part.outputs.set_result(outputs[start : start + len(part.images)])
        return True
