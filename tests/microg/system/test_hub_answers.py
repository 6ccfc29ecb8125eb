"""The hub is asked only where somebody listens."""

from __future__ import annotations

import socket

import pytest

from microg.system.hub import hub_answers


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_port_where_nobody_listens_and_a_name_that_nobody_has_do_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert hub_answers(f"http://127.0.0.1:{port}")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert not hub_answers(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert not hub_answers("https://hub.invalid")


def test_a_proxy_is_trusted_to_know_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert hub_answers("https://behind-a-proxy.invalid")


def test_a_proxy_is_not_trusted_for_hosts_that_go_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert not hub_answers(f"http://127.0.0.1:{unused.getsockname()[1]}")
