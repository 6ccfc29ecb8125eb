"""Whose turn it is to start on a GPU that several engines share."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from microg.locks import lock


@contextmanager
def turn_on_gpus() -> Iterator[None]:
    """Let one process of this user at a time start on the GPUs that this process sees; others wait here.

    An engine that starts measures what memory is free: two that did so at once would each count on the other's.
    """
    folder = Path(tempfile.gettempdir()) / f"microg-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    with ExitStack() as held:
        # in one order everywhere, so that two that want the same GPUs do not wait for each other
        for name in sorted({part.strip().replace("/", "-") for part in visible.split(",")}):
            held.enter_context(lock(folder / f"{name}.lock"))
        yield


def wait_for_gpu_memory(part: float, seconds: float, free: Callable[[], float | None]) -> None:
    """Wait until a part of the GPU's memory is free, for a process that ended gives it back a while later.

    Args:
        part: Of the memory, 0 to 1.
        seconds: After which whoever needs it finds out.
        free: Returns the part that is free, None where that cannot be known.
    """
    end = time.monotonic() + seconds
    while (now := free()) is not None and now < part and time.monotonic() < end:
        time.sleep(1)
