"""One vLLM for several callers: a thread of its own steps it, and requests of all of them are batched as they come.

What vLLM's asynchronous engine does, but also where vLLM runs in this process, as it does on CPUs: there it starts
three times as fast. On GPUs its core is a process that goes on by itself while requests are made ready here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from microg.errors import ConfigError, describe

# Requests in a row that break vLLM, each alone, until it is given up.
_MOST_BROKEN = 3


@dataclass(eq=False)
class _Request:
    """A prompt, how text is drawn, and the answer to come; `ready`: the prompt as vLLM's core takes it."""

    prompt: Mapping[str, Any]
    parameters: Any
    output: Future[Any] = field(default_factory=Future)
    ready: Any = None


class VllmLoop:
    """Answers requests of any thread.

    A request that vLLM refuses fails alone. One that breaks vLLM ends it with all that is under way: then a new one is
    started and asked each of them alone, so that only those fail that must.
    """

    def __init__(
        self, start: Callable[[], Any], make_ready: Callable[[Any, Mapping[str, Any]], Any], most: int
    ) -> None:
        """Start vLLM.

        Args:
            start: Returns an `LLM`; its errors are raised.
            make_ready: Takes that and a prompt, and returns the prompt with its frames processed.
            most: Requests that are under way at once.
        """
        self._start, self._make_ready, self._llm = start, make_ready, start()
        self._closing, self._ended = False, ""
        self._room = threading.BoundedSemaphore(most)
        self._queue: deque[_Request] = deque()
        self._came = threading.Event()
        # Requests are made ready one at a time, and sent in that order: vLLM keeps frames that it has seen in a cache
        # beside its core's, and both must see them in the same order. After a break they wait as they are.
        self._order = threading.Lock()
        self._steady = True
        self._under_way: dict[str, _Request] = {}
        self._suspects: deque[_Request] = deque()
        self._number = self._broken = 0
        self._thread = threading.Thread(target=self._run, name="vllm", daemon=True)
        self._thread.start()

    def submit(self, prompt: Mapping[str, Any], parameters: Any) -> Future[Any]:
        """Return the `RequestOutput` to come, or the error; waits where many requests are under way.

        A `ConfigError` in it says that vLLM was given up.
        """
        request = _Request(prompt, parameters)
        self._room.acquire()
        request.output.add_done_callback(lambda _: self._room.release())
        with self._order:
            try:
                if self._ended:
                    raise ConfigError(self._ended)
                if self._steady:
                    request.ready = self._make_ready(self._running(), request.prompt)
                self._queue.append(request)
            except Exception as error:
                request.output.set_exception(error)
        self._came.set()
        return request.output

    def close(self) -> None:
        """End vLLM and its processes; what is under way fails."""
        self._closing = True
        self._came.set()
        self._thread.join()

    @property
    def ended(self) -> bool:
        """Whether it was closed or given up, and answers nothing more."""
        return bool(self._ended)

    def _run(self) -> None:
        error: Exception = ConfigError("vLLM was closed")
        try:
            while not self._closing:
                if not (self._queue or self._under_way):
                    self._came.wait()
                self._came.clear()
                self._take()
                if self._under_way:
                    self._step()
        except Exception as problem:
            error = problem
        finally:
            with self._order:
                self._ended = str(error) or type(error).__name__
                self._stop()
            for request in [*self._under_way.values(), *self._suspects, *self._queue]:
                request.output.set_exception(error)

    def _take(self) -> None:
        """Send what is in the queue to vLLM's core."""
        if self._steady:
            while self._queue:
                self._add(self._queue.popleft())
            return
        with self._order:
            while self._queue:
                self._add(self._queue.popleft())
            self._steady = True

    def _add(self, request: _Request) -> None:
        """Send a request to vLLM's core; one that it refuses fails."""
        self._number += 1
        try:
            llm = self._running()
            ready = request.ready or self._make_ready(llm, request.prompt)
            llm.llm_engine.add_request(str(self._number), ready, request.parameters)
            request.ready = None  # its frames would be in memory twice
        except ConfigError as error:
            request.output.set_exception(error)
            raise
        except Exception as error:
            request.output.set_exception(error)
        else:
            self._under_way[str(self._number)] = request

    def _step(self) -> None:
        try:
            for output in self._running().llm_engine.step():
                if output.finished:
                    self._broken = 0
                    self._under_way.pop(output.request_id).output.set_result(output)
        except Exception as error:
            lost, self._under_way = list(self._under_way.values()), {}
            with self._order:
                self._steady = False
                for request in self._queue:
                    request.ready = None
            # what vLLM believes to be in its caches is wrong after a failed step, where it has not ended altogether
            self._stop()
            if len(lost) == 1:
                self._count_broken(lost[0], error)
            else:
                self._suspects.extend(lost)
                while self._suspects:
                    self._ask_alone(self._suspects.popleft())

    def _ask_alone(self, request: _Request) -> None:
        self._add(request)
        while self._under_way:
            self._step()

    def _count_broken(self, request: _Request, error: Exception) -> None:
        self._broken += 1
        if self._broken < _MOST_BROKEN:
            request.output.set_exception(error)
            return
        hopeless = ConfigError(
            f"vLLM broke down on {_MOST_BROKEN} requests in a row, the last time: {describe(error)}",
            "try a smaller context or max_num_seqs, or the engine transformers",
        )
        request.output.set_exception(hopeless)
        raise hopeless

    def _running(self) -> Any:
        if self._llm is None:
            self._llm = self._start()
        return self._llm

    def _stop(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            with suppress(Exception):  # it may have ended by itself
                llm.llm_engine.engine_core.shutdown()
