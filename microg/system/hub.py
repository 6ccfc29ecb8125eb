"""Whether the Hugging Face hub can be reached: its client tries for half a minute before it says no."""

from __future__ import annotations

import socket
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_SECONDS = 3.0


@cache
def hub_answers(endpoint: str) -> bool:
    """Tell whether somebody listens at the hub's address; True where a proxy stands between, which is not asked."""
    parts = urlsplit(endpoint)
    if not parts.hostname or (getproxies().get(parts.scheme) and not proxy_bypass(parts.hostname)):
        return True
    try:
        socket.create_connection((parts.hostname, parts.port or 443), timeout=_SECONDS).close()
    except OSError:
        return False
    return True
