"""Servers in which people annotate clips, found by name and imported only when used.

A server is a module with `connect(url)`, which gives what `AnnotationServer` of `base` says, `check_ready()`, which
raises when a key or a package is missing, and a line in `SERVERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from microg.registry import Registry

if TYPE_CHECKING:  # the command line lists the servers without waiting for their clients
    from microg.system.annotation_servers.base import AnnotationServer


@dataclass(frozen=True)
class ServerEntry:
    """A registry entry.

    Attributes:
        module: The module that has `connect`.
        title: What people call the server.
        variables: The environment variables that hold what it is opened with.
        export: Options of the format of the same name when a push writes the export that it sends.
    """

    module: str
    title: str
    variables: str
    export: Mapping[str, str] = field(default_factory=dict)


SERVERS = Registry(
    "annotation server",
    {
        "cvat": ServerEntry(
            "microg.system.annotation_servers.cvat", "CVAT", "CVAT_TOKEN, or CVAT_USERNAME and CVAT_PASSWORD"
        ),
        "labelstudio": ServerEntry(
            "microg.system.annotation_servers.label_studio",
            "Label Studio",
            "LABEL_STUDIO_API_KEY",
            {"video_prefix": ""},  # where videos are is said when each is sent
        ),
    },
)


def connect(name: str, url: str) -> AbstractContextManager[AnnotationServer]:
    """Return a session with the server at `url`, of the kind `name`, to be closed by `with`.

    Raises:
        ConfigError: There is no such kind, the URL is none, the key is not in the environment, or a package is missing.
        AnnotationServerError: Nobody answers there, or the key is refused.
    """
    from microg.system.annotation_servers.base import check_url, refuse_silence

    entry = SERVERS.find(name)
    url = check_url(url)
    module = import_module(entry.module)
    module.check_ready()
    refuse_silence(url, entry.title)
    return module.connect(url)
