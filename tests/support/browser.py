"""A headless Chromium that opens a page of ours in a frame of a phone's width and tells what it saw."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
    "--hide-scrollbars",
)


def look(page: Path, folder: Path, *, width: int = 390, script: str = "{}") -> dict[str, Any]:
    """Open `page` in a frame `width` pixels wide and return what was found; skips where there is no Chromium.

    `script` is a JavaScript expression over `page` (its document); its value comes back as `result`. Besides: width,
    needed (by the content), images, blank (images that show nothing), fetched (addresses outside the page) and console
    (what the page logged, and its errors).
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    frame = folder / "frame.html"
    # Headless windows may be wider than a phone; a frame has exactly the width it is given.
    frame.write_text(
        f"""<iframe id="frame" src="{page.resolve().as_uri()}" width="{width}" height="20000" frameborder="0"></iframe>
        <pre id="out"></pre><script>
        frame.onload = () => {{
          const page = frame.contentDocument, inside = frame.contentWindow;
          page.querySelectorAll("details").forEach(part => part.open = true);
          page.querySelectorAll("img").forEach(image => image.loading = "eager");
          const tell = () => out.textContent = JSON.stringify({{
            width: page.documentElement.clientWidth, needed: page.documentElement.scrollWidth,
            blank: [...page.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.alt),
            images: page.images.length, result: ({script}),
            fetched: inside.performance.getEntriesByType("resource").map(entry => entry.name)
                     .filter(name => !name.startsWith("data:")),
          }});
          setTimeout(tell, 1000);
        }};
        </script>"""
    )
    command = [
        browser,
        *_FLAGS,
        "--virtual-time-budget=8000",
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
        frame.as_uri(),
    ]
    done = subprocess.run(command, check=True, capture_output=True, timeout=120, text=True)
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None
    assert found.group(1), done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return {**json.loads(html.unescape(found.group(1))), "console": console}
