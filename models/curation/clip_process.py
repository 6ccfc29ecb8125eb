"""A process that observes clips beside a network it does not hold: it decodes, measures and tracks on a core of its
own, and lends the network of the process that started it. So one GPU serves many cores.

Threads would not do: tracking holds Python's lock for up to two fifths of the time (`benchmarks/RESULTS.md`), and a
clip whose decoder crashes would take all others along.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microg.errors import WorkerError, describe
from microg.models.curation.observe import Observation, observe
from microg.models.curation.tracking import TrackerSettings
from microg.models.detection.base import CONFIDENCE_FLOOR, DetectorSettings
from microg.models.detection.network_backends import Engine

# What the processes share once it is imported: they fork from a server that has nothing else.
_PRELOADED = [__name__, "microg.models.detection.yolo", "ultralytics.trackers.bot_sort"]


class ClipProcessDiedError(Exception):
    """The process ended while it observed a clip."""


@dataclass(frozen=True)
class _Images:
    """The shape of images that lie in the shared memory and wait for the network."""

    shape: tuple[int, ...]


class ClipProcess:
    """Observes one clip at a time; starts with the first, and again after it died."""

    def __init__(self, tracker: TrackerSettings, detector: DetectorSettings, decoder: str = "auto") -> None:
        self._settings = tracker, detector, decoder
        self._process: Any = None

    def observe(self, uri: str, num_frames: int, engine: Engine) -> Observation | str:
        """Observe a clip, with `engine` called by this thread; returns `type: message` where that fails.

        Raises `ClipProcessDiedError` when it kills the process, and `WorkerError` when that does not start.
        """
        if self._process is None:
            self.start()
        try:
            self._connection.send((uri, num_frames))
            while isinstance(message := self._connection.recv(), _Images):
                self._connection.send(self._likely_outputs(message.shape, engine))
        except (EOFError, OSError) as error:
            self.close()
            raise ClipProcessDiedError(uri) from error
        return message

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._process = None

    def start(self) -> None:
        """Start the process; raises `WorkerError` when it ends at once."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        _, detector, _ = self._settings
        shared = context.RawArray("B", detector.batch_size * detector.image_size**2 * 3)
        self._shared = np.frombuffer(shared, np.uint8)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, shared, *self._settings), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is the connection's
        try:
            self._connection.recv()
        except (EOFError, OSError) as error:
            self.close()
            raise WorkerError("a process that observes clips ended at its start", "its log says why") from error

    def _likely_outputs(self, shape: tuple[int, ...], engine: Engine) -> list[np.ndarray] | str:
        images = self._shared[: int(np.prod(shape))].reshape(shape)
        try:
            # the others, nearly all, would be thrown away at once
            return [output[:, output[4:].max(axis=0) > CONFIDENCE_FLOOR] for output in engine(images)]
        except Exception as error:
            return describe(error)


class _NetworkError(Exception):
    """What the lent network raised, as `type: message`."""


class _LentEngine:
    """The network of the other process."""

    def __init__(self, connection: Any, shared: Any) -> None:
        self._connection, self._shared = connection, np.frombuffer(shared, np.uint8)

    def __call__(self, images: np.ndarray) -> Sequence[np.ndarray]:
        self._shared[: images.size] = images.reshape(-1)
        self._connection.send(_Images(images.shape))
        outputs = self._connection.recv()
        if isinstance(outputs, str):
            raise _NetworkError(outputs)
        return outputs


def _serve(connection: Any, shared: Any, tracker: TrackerSettings, settings: DetectorSettings, decoder: str) -> None:
    """Observe the clips that the other process names, until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if decoder != "nvdec":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    limit_threads(1)
    from microg.models.detection.load import detector_on

    detector = detector_on(_LentEngine(connection, shared), settings)
    connection.send("ready")
    while True:
        try:
            uri, num_frames = connection.recv()
        except (EOFError, OSError):
            return
        try:
            seen: Observation | str = observe(
                uri,
                detector,
                num_frames=num_frames,
                tracker=tracker,
                batch_size=settings.batch_size,
                frame_step=settings.frame_step,
                decoder=decoder,
            )
        except _NetworkError as error:
            seen = str(error)
        except Exception as error:
            seen = describe(error)
        connection.send(seen)


def limit_threads(threads: int) -> None:
    """Keep the numeric libraries of this process to `threads` threads: one actor a core, not each on all cores."""
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
