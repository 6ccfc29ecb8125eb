"""Throughput of the openai engine against a rate limit, beside the vendor's client with a fixed number of requests.

    python benchmarks/vlm_api.py --seconds 75

A server on 127.0.0.1 answers after 50 ms and allows 600 requests a minute, in one of two ways: `bucket` (ten a second,
at most ten saved up) or `minute` (600 in any 60 s); more is answered 429 with Retry-After. What counts is read at the
server: answers a second after the first ten seconds, over the limit, and refusals after the first ten seconds.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from microg.jobs.common import JsonOption, make_app, print_json, run
from microg.models.vlm.api.gate import Limits, LocalGate
from microg.models.vlm.api.openai import OpenAiEngine
from microg.models.vlm.base import Request, Sampling

PER_MINUTE, LATENCY_S, SETTLED_S = 600, 0.05, 10.0
_VARIANTS = ("known", "learned", "client-8", "client-32")
_ANSWER = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A cup."}}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
    }
).encode()


@dataclass
class Server:
    """Answers chat completions in a thread of its own; `answered` and `refused` are times."""

    rule: str
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self._recent: deque[float] = deque()
        self._level, self._at = float(PER_MINUTE) / 60, time.monotonic()
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True).start()
        ready.wait()

    def wait_s(self, now: float) -> float:
        """Return 0 and count the request where it is allowed, else the seconds until one is."""
        if self.rule == "minute":
            while self._recent and now - self._recent[0] >= 60:
                self._recent.popleft()
            if len(self._recent) >= PER_MINUTE:
                return 60 - (now - self._recent[0])
            self._recent.append(now)
            return 0.0
        rate = PER_MINUTE / 60
        self._level, self._at = min(rate, self._level + (now - self._at) * rate), now
        if self._level < 1:
            return (1 - self._level) / rate
        self._level -= 1
        return 0.0

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:")
                await reader.readexactly(length)
                now = time.monotonic()
                wait = self.wait_s(now)
                if wait > 0:
                    self.refused.append(now)
                    body, status, more = b'{"error": {"message": "slow down"}}', "429 Too Many", f"retry-after: {wait}"
                else:
                    await asyncio.sleep(LATENCY_S)
                    self.answered.append(time.monotonic())
                    body, status, more = _ANSWER, "200 OK", f"x-ratelimit-limit-requests: {PER_MINUTE}"
                lines = (f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", more)
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@dataclass(frozen=True)
class Result:
    """What one variant reached: `share` is answers over the limit once it settled; counts of refusals (429)."""

    variant: str
    rule: str
    seconds: float
    answers: int
    share: float
    refused: int
    refused_after_10s: int
    cpu_s: float


def measure(variant: str, rule: str, seconds: float) -> Result:
    """Ask as fast as the variant can for `seconds`."""
    from openai import AsyncOpenAI  # seconds that belong to no variant

    AsyncOpenAI(api_key="none")
    server = Server(rule)
    cpu, start = time.process_time(), time.monotonic()
    if variant.startswith("client"):
        asyncio.run(_client(server.url, int(variant.split("-")[1]), start + seconds))
    else:
        limits = Limits(PER_MINUTE if variant == "known" else None, concurrency=32)
        engine = OpenAiEngine("m", server.url, concurrency=32, gate=LocalGate(limits))
        most = int(seconds * PER_MINUTE / 60 * 2)
        for _ in engine.generate([Request(str(n), f"question {n}") for n in range(most)], Sampling(max_tokens=20)):
            if time.monotonic() - start >= seconds:
                break
    end = start + seconds
    settled = [at for at in server.answered if start + SETTLED_S <= at < end]
    late = [at for at in server.refused if start + SETTLED_S <= at < end]
    share = len(settled) / (seconds - SETTLED_S) / (PER_MINUTE / 60)
    return Result(
        variant, rule, seconds, len(server.answered), share, len(server.refused), len(late), time.process_time() - cpu
    )


async def _client(url: str, at_once: int, end: float) -> None:
    """Ask with the vendor's client and its own retries, `at_once` requests under way."""
    from openai import APIError, AsyncOpenAI

    async with AsyncOpenAI(api_key="none", base_url=url, max_retries=8) as client:
        numbers = count()

        async def work() -> None:
            while time.monotonic() < end:
                messages: Any = [{"role": "user", "content": f"question {next(numbers)}"}]
                try:
                    await client.chat.completions.create(model="m", messages=messages, max_tokens=20)
                except APIError:
                    continue

        tasks = [asyncio.create_task(work()) for _ in range(at_once)]
        await asyncio.sleep(max(0.0, end - time.monotonic()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main(
    seconds: Annotated[float, typer.Option(min=15, help="How long each variant asks.")] = 75.0,
    rule: Annotated[list[str] | None, typer.Option(help="bucket, minute; may be repeated. [default: both]")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Which variants. [default: all]")] = None,
    alone: Annotated[bool, typer.Option(hidden=True)] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure every variant under every rule, each in a process of its own, all at the same time.

    They wait most of the time, so that they do not disturb each other.
    """
    pairs = [(one, each) for each in rule or ("bucket", "minute") for one in variant or _VARIANTS]
    if alone:
        print_json(asdict(measure(*pairs[0], seconds)))
        return
    command = [sys.executable, __file__, "--alone", "--seconds", str(seconds)]
    running = [
        subprocess.Popen([*command, "--variant", one, "--rule", each], stdout=subprocess.PIPE) for one, each in pairs
    ]
    results = [json.loads(process.communicate()[0]) for process in running]
    if as_json:
        print_json(results)
        return
    print(f"{'variant':10} {'rule':7} {'answers':>8} {'share':>6} {'429':>6} {'429 after 10 s':>15} {'CPU s':>6}")
    for result in results:
        print(
            f"{result['variant']:10} {result['rule']:7} {result['answers']:8} {result['share']:6.3f} "
            f"{result['refused']:6} {result['refused_after_10s']:15} {result['cpu_s']:6.1f}"
        )


if __name__ == "__main__":
    app = make_app("Throughput of API engines against a rate limit.")
    app.command()(main)
    run(app)
