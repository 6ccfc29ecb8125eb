"""A server of chat completions that costs next to nothing, in a process of its own: `python tiny_server.py SECONDS`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import zlib

_WORDS = ("the", "astronaut", "floats", "works", "by", "a", "hatch", "near", "racks", "holding", "cables", "slowly")


def server_process(latency_s: float) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server that answers `latency_s` after each request; return its process and its URL."""
    process = subprocess.Popen([sys.executable, __file__, str(latency_s)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, process.stdout.readline().decode().strip()


def answer(request: bytes) -> bytes:
    """Return a completion of some words that depend on the request."""
    number = zlib.crc32(request)
    text = " ".join(_WORDS[(number >> (2 * place)) % len(_WORDS)] for place in range(4 + number % 8)) + "."
    message = {"role": "assistant", "content": text}
    return json.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
        }
    ).encode()


async def serve(latency_s: float) -> None:
    """Answer until killed; the first line printed is the URL."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:")
                said = answer(await reader.readexactly(length))
                await asyncio.sleep(latency_s)
                writer.write(
                    f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(said)}\r\n\r\n".encode()
                )
                writer.write(said)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, limit=2**26)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
