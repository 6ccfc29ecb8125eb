"""Callers in several threads share a network: its batches, never each other's numbers or faults."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from microg.models.detection.shared_engine import SharedEngine

SIZE = 8


class Means:
    """A network that tells each image's mean, records batches, and fails on images of 255."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.filled: list[int] = []
        self.seconds, self.busy = seconds, 0.0
        self.free = threading.Event()
        self.free.set()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.free.wait(60)
        started = time.perf_counter()
        self.shapes.append(images.shape)
        self.filled.append(int(np.count_nonzero(images.max(axis=(1, 2, 3)))))
        time.sleep(self.seconds)
        self.busy += time.perf_counter() - started
        if images.max() == 255:
            raise ValueError("too bright")
        return images.mean(axis=(1, 2, 3))[:, None]


def images(*values: int, side: int = 4) -> np.ndarray:
    return np.stack([np.full((side, side, 3), value, np.uint8) for value in values])


def together(network: Means, engine: SharedEngine, *requests: np.ndarray) -> list[list[float] | Exception]:
    """Hand in requests while the network is busy with another, and return their outputs or errors."""

    def call(request: np.ndarray) -> list[float] | Exception:
        try:
            return [float(output[0]) for output in engine(request)]
        except Exception as error:
            return error

    network.free.clear()
    with ThreadPoolExecutor(len(requests) + 1) as threads:
        first = threads.submit(engine, images(1))
        while engine._waiting:
            time.sleep(0.001)
        results = [threads.submit(call, request) for request in requests]
        while sum(len(part.images) for part in engine._waiting) < sum(map(len, requests)):
            time.sleep(0.001)
        network.free.set()
        assert first.result()[0] == 1
        return [result.result() for result in results]


def test_what_waits_goes_through_the_network_together_and_comes_back_to_whom_it_belongs():
    network = Means()
    engine = SharedEngine(network, SIZE)
    found = together(network, engine, images(10, 11, 12), images(20, 21), images(30, 31, 32), images(40))
    assert found == [[10, 11, 12], [20, 21], [30, 31, 32], [40]]
    assert len(network.filled) == 3  # what kept it busy, eight images of three callers, the ninth
    assert sum(network.filled) == 10
    assert set(network.shapes) == {(SIZE, 4, 4, 3)}  # of one shape, whoever is in it


def test_images_of_another_shape_have_a_batch_of_their_own():
    network = Means()
    engine = SharedEngine(network, SIZE)
    assert together(network, engine, images(10), images(20, side=6), images(30)) == [[10], [20], [30]]
    assert sorted(network.shapes[1:]) == [(SIZE, 4, 4, 3), (SIZE, 6, 6, 3)]


def test_a_fault_reaches_its_caller_alone():
    network = Means()
    engine = SharedEngine(network, SIZE)
    good, bad, other = together(network, engine, images(10), images(11, 255), images(30))
    assert (good, other) == ([10], [30])
    assert isinstance(bad, ValueError)
    assert engine(images(5))[0] == 5  # and the engine goes on


def test_more_images_than_a_batch_are_split():
    network = Means()
    engine = SharedEngine(network, SIZE)
    assert [float(output[0]) for output in engine(images(*range(1, 20)))] == list(range(1, 20))
    assert network.filled == [8, 8, 3]


def test_an_engine_that_ends_does_what_waits_and_refuses_what_comes():
    network = Means()
    engine = SharedEngine(network, SIZE)
    network.free.clear()
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(engine, images(7))
        while not engine._waiting and not waiting.running():
            time.sleep(0.001)
        ended = threads.submit(engine.close)
        network.free.set()
        ended.result(timeout=60)
    if waiting.exception() is None:
        assert waiting.result()[0] == 7
    with pytest.raises(RuntimeError, match="has ended"):
        engine(images(1))


def test_a_network_of_20_ms_a_batch_is_kept_busy_by_callers_that_work_as_long_themselves():
    network = Means(seconds=0.02)
    engine = SharedEngine(network, SIZE)

    def clip(value: int) -> None:
        for _ in range(12):
            time.sleep(0.02)  # decodes
            engine(images(*[value] * 4))

    started = time.perf_counter()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(clip, range(1, 9)))
    assert network.busy / (time.perf_counter() - started) > 0.8
    assert np.mean(network.filled) > 6  # of 8: two callers share nearly every batch
