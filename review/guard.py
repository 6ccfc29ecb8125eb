"""What stands before the application: which hosts and pages may speak to it, how much they may send, what it adds.

A browser sends requests for any page that it shows. So that pages of others can neither make it judge nor read what it
sees here: the Host has to be this server's (else a name of theirs could be pointed at it), requests that change
something need a header that no form can send, and an Origin, where there is one, has to be the Host.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

MAX_BODY_BYTES = 256 * 1024
COOKIE = "microg_review"
_CSP = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Refuse = Callable[[Scope, int, str], None]


class Hosts:
    """The values of the header Host that are this server's.

    Args:
        names: Names and addresses without a port.
        port: The port that the server listens on.
        public: What a proxy is called, with its port where that is none of the usual ones.
        any_address: Whether a plain address, which no name server can point elsewhere, is enough.
    """

    def __init__(
        self, names: Iterable[str], port: int, *, public: str | None = None, any_address: bool = False
    ) -> None:
        self._port, self._any_address = port, any_address
        self._names = {f"{name.lower()}:{port}" for name in names}
        if port == 80:
            self._names |= {name.lower() for name in names}
        if public is not None:
            self._names.add(public.lower())

    def allows(self, host: str) -> bool:
        """Tell whether a request with this Host may go on."""
        host = host.lower()
        return host in self._names or (self._any_address and self._is_address(host))

    def _is_address(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return port == str(self._port)


class Guard:
    """ASGI application around another.

    Args:
        app: What is guarded.
        hosts: The server's names.
        refuse: Logs a refused request: scope, status, what.
    """

    def __init__(self, app: Any, hosts: Hosts, refuse: Refuse) -> None:
        self._app, self._hosts, self._refuse = app, hosts, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no others here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _with_headers(message.get("headers", []))
            await send(message)

        refusal = self._why_not(scope)
        body = b""
        if refusal is None and scope["method"] == "POST":
            body, refusal = await _read(scope, receive)
        if refusal is not None:
            status, what, fix = refusal
            await _in_thread(self._refuse, scope, status, what)
            await _answer(sending, status, {"error": what, "fix": fix})
            return
        if scope["method"] != "POST":
            await self._app(scope, receive, sending)
            return
        sent = False

        async def replayed() -> MutableMapping[str, Any]:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replayed, sending)

    def _why_not(self, scope: Scope) -> tuple[int, str, str | None] | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if not self._hosts.allows(host):
            return 403, f"this server is not {host[:100]!r}", "open the link that 'microg review' printed"
        site = headers.get("sec-fetch-site", "none")
        if scope["method"] in ("GET", "HEAD"):
            if site not in ("none", "same-origin") and scope["path"] != "/":
                return 403, "another site's page asks for this", None
            return None
        if scope["method"] != "POST":
            return 405, f"method {scope['method']} is not known here", None
        origin = headers.get("origin")
        if origin is not None and not _same(origin, host):
            return 403, f"a page of {origin[:100]!r} may not change anything here", None
        if headers.get("x-microg") != "review" or site not in ("none", "same-origin"):
            return 403, "the header 'X-Microg: review' is missing, or another site's page sends it", None
        return None


def _same(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


async def _read(scope: Scope, receive: Receive) -> tuple[bytes, tuple[int, str, str | None] | None]:
    too_much = (413, f"a request has at most {MAX_BODY_BYTES // 1024} KB", None)
    stated = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if not stated.isdigit() or int(stated) > MAX_BODY_BYTES:
        return b"", too_much
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"", (400, "the request broke off", None)
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return b"", too_much
        if not message.get("more_body"):
            return body, None


async def _in_thread(function: Callable[..., None], *arguments: Any) -> None:
    from anyio.to_thread import run_sync

    await run_sync(lambda: function(*arguments))


def _with_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    given = list(headers)
    known = {name.lower() for name, _ in given}
    more = _HEADERS if b"cache-control" in known else {**_HEADERS, "cache-control": "no-store"}
    return given + [(name.encode(), value.encode()) for name, value in more.items()]


async def _answer(send: Send, status: int, document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
