"""A `microg review` server of its own process, a small dataset for it, and annotators in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from microg.data import schema
from microg.data.dataset import Dataset
from tests.support import footage
from tests.support.processes import start_microg, wait_for

FPS, FRAMES, SIZE = 10, 20, (160, 90)
HOSTILE = "<img src=x onerror=\"document.title='caught'\"> floats"
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--autoplay-policy=no-user-gesture-required",
)


def make_dataset(root: Path, clips: int = 12, *, people: int = 1, size: tuple[int, int] = SIZE) -> Dataset:
    """Write clips of two seconds whose frames tell their number, with moving people, captions and questions."""
    dataset = Dataset.create(str(root), "station")
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("clips", "boxes", "captions", "qa", "actions")}
    width, height = size
    for number in range(clips):
        clip_id = f"iss{number // 6}_{number:03d}"
        footage.write_footage(root / f"videos/{clip_id}.mp4", FRAMES, fps=FPS, size=size, gop=5)
        rows["clips"].append(
            {
                "clip_id": clip_id,
                "source_id": f"iss{number // 6}",
                "sequence": number,
                "uri": f"videos/{clip_id}.mp4",
                "origin": "real",
                "fps": float(FPS),
                "num_frames": FRAMES,
                "width": width,
                "height": height,
                "duration_s": FRAMES / FPS,
                "status": "ok",
            }
        )
        for person in range(1, people + 1):
            for frame in range(2, FRAMES):
                left = width * (0.05 + 0.3 * (person - 1) + 0.004 * frame)
                box = {"x1": left, "y1": height * 0.2, "x2": left + width * 0.2, "y2": height * 0.85}
                rows["boxes"].append({"clip_id": clip_id, "frame": frame, "person_id": person, **box})
        caption = HOSTILE if number == 0 else f"An astronaut floats through module {number}."
        rows["captions"].append({"clip_id": clip_id, "caption": caption})
        question = {"question": f"What is astronaut {number} doing?", "answer": "Floating."}
        rows["qa"].append({"clip_id": clip_id, "qa_index": 0, **question})
    for name, table in rows.items():
        dataset.write(name, schema.from_rows(name, table))
    return dataset


@dataclass
class Server:
    """A running server, which can be killed and started again on the same port."""

    root: Path
    log: Path
    options: Sequence[str] = ()
    port: int = 0
    process: psutil.Popen | None = None
    links: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it tells its links."""
        self.port = self.port or _free_port()
        process = start_microg(self.log, "review", self.root, "--port", self.port, *self.options)
        self.process = process
        wait_for(lambda: "Ctrl-C ends it" in self.log.read_text(), process, self.log, 60)
        told = re.findall(r"^\s+(\S+): (http\S+#token=\S+)$", self.log.read_text(), re.MULTILINE)
        self.links.update(told)

    def kill(self) -> None:
        """Kill it without warning."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> str:
        """End it as Ctrl-C does, and return what it printed."""
        assert self.process is not None
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            self.process.wait(timeout=60)
        return self.log.read_text()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def serving(root: Path, *options: str) -> Iterator[Server]:
    """Serve a dataset until the block ends."""
    server = Server(root, root.parent / f"{root.name}.log", options)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()


def chromium() -> str:
    """Return where Chromium is; skips where there is none, or nothing to drive it with."""
    pytest.importorskip("playwright", reason="the package playwright is not installed")
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    return browser


@dataclass
class Watch:
    """What pages did that they must not do."""

    origin: str
    trouble: list[str] = field(default_factory=list)
    expected: re.Pattern[str] | None = None

    def over(self, page: Any) -> None:
        """Watch a page: its errors, what it logs, and requests to other places."""
        page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        page.on("console", lambda message: self._logged(message))
        page.on("request", lambda request: self._asked(request.url))
        page.on("dialog", lambda dialog: dialog.accept())

    def _logged(self, message: Any) -> None:
        if message.type in ("error", "warning") and not (self.expected and self.expected.search(message.text)):
            self.trouble.append(f"{message.type}: {message.text}")

    def _asked(self, url: str) -> None:
        if not url.startswith((f"{self.origin}/", "data:", "blob:")):
            self.trouble.append(f"asked {url}")


class Browsers:
    """Opens pages for annotators, and watches them."""

    def __init__(self, playwright: Any, folder: Path) -> None:
        self._chromium, self._folder = playwright.chromium, folder
        self._shared: Any = None
        self._open: list[Any] = []
        self._watches: list[Watch] = []

    def page(self, server: Server, name: str, mode: str = "", *, keep: bool = False, **looks: Any) -> Any:
        """Open the page as an annotator, by their link where there are links.

        Args:
            server: The server.
            name: The annotator.
            mode: The mode to open.
            keep: Whether it is a browser of their own, whose profile the same name finds again.
            looks: width, height, dark, touch, and clock: whether the page's time may be set.
        """
        shape = {
            "viewport": {"width": looks.get("width", 1280), "height": looks.get("height", 800)},
            "color_scheme": "dark" if looks.get("dark") else "light",
            "has_touch": looks.get("touch", False),
        }
        start = {"executable_path": chromium(), "headless": True, "args": list(_FLAGS)}
        if keep:
            context = self._chromium.launch_persistent_context(self._folder / name, **start, **shape)
        else:
            self._shared = self._shared or self._chromium.launch(**start)
            context = self._shared.new_context(**shape)
        context.set_default_timeout(15_000)
        self._open.append(context)
        page = context.pages[0] if keep else context.new_page()
        if looks.get("clock"):
            page.clock.install()
        watch = Watch(server.origin)
        self._watches.append(watch)
        watch.over(page)
        if name in server.links:
            page.goto(server.links[name])
            page.locator(".tabs button").first.wait_for()
        page.goto(f"{server.origin}/#{mode}")
        page.locator(".tabs button").first.wait_for()
        if mode:
            page.evaluate("mode => { location.hash = mode; }", mode)
            page.locator(".tab[aria-current]", has_text=mode.capitalize()).wait_for()
        return page

    def expect(self, words: str) -> None:
        """Let pages log what fits a pattern: of refusals and servers that were killed the browser tells itself."""
        for watch in self._watches:
            watch.expected = re.compile(words)

    def close(self) -> None:
        """Close all pages. Asserts that none logged an error or asked another server."""
        while self._open:
            with suppress(Exception):  # one that was killed cannot be closed
                self._open.pop().close()
        trouble = [each for watch in self._watches for each in watch.trouble]
        self._watches.clear()
        assert trouble == [], trouble

    def end(self) -> None:
        """End the browser that pages share."""
        if self._shared is not None:
            self._shared.close()


@contextmanager
def playing(folder: Path) -> Iterator[Browsers]:
    """Start what drives browsers; at the end no page has logged an error or asked another server."""
    chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browsers = Browsers(playwright, folder)
        try:
            yield browsers
            browsers.close()
        finally:
            browsers.end()


def kill_browser(folder: Path) -> None:
    """Kill the browsers whose profile lies below `folder`, without warning."""
    found = [each for each in psutil.process_iter(["cmdline"]) if _of_profile(each, folder)]
    for process in found:
        if process.is_running():
            process.kill()
    psutil.wait_procs(found, timeout=20)


def _of_profile(process: psutil.Process, folder: Path) -> bool:
    return any(argument.startswith(f"--user-data-dir={folder}") for argument in process.info["cmdline"] or [])


def saved(page: Any) -> None:
    """Wait until the server has everything, also of a click that the page has yet to hear of."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.locator(".saving[data-state=saved]").wait_for()


def in_work(page: Any) -> tuple[str, str]:
    """Wait for an item, and return its task id and its clip."""
    page.locator(".work[data-task]:not([data-task=''])").wait_for()
    return page.locator(".work").get_attribute("data-task"), page.locator(
        ".item-heading h1 .quiet"
    ).inner_text().strip()


def gone_on(page: Any, task: str) -> None:
    """Wait until another item is in work, or none."""
    page.wait_for_function("task => document.querySelector('.work').dataset.task !== task", arg=task)
