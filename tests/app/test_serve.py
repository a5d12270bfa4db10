"""Serving: what the browser may load, who may ask, and what is said without gradio."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

import pytest

from trompe.app.serve import Headers, is_loopback, serve
from trompe.cli import main


def test_without_gradio_one_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "gradio" in err
    assert "pip install" in err


def test_every_answer_says_what_may_be_loaded() -> None:
    sent: list[dict[str, Any]] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Headers(answer)({"type": "http"}, None, send))  # type: ignore[arg-type]
    headers = dict(sent[0]["headers"])
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy
    assert not re.search(r"https?:|\*", policy)


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False),
     ("192.168.0.2", False), ("example.org", False)],
)  # fmt: skip
def test_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def test_the_page_is_for_this_machine_and_loads_nothing_from_elsewhere() -> None:
    pytest.importorskip("gradio", reason="the extra 'app' is not installed")
    import httpx

    address, page = serve(["tiny-vgg"], block=False)
    try:
        assert address.startswith("http://127.0.0.1:")
        answer = httpx.get(address)
        assert answer.status_code == 200
        loaded = re.findall(r'(?:src|href)="(https?:)?//([^"/]+)', answer.text)
        assert {host for _, host in loaded} <= {address.split("/")[2]}
        assert "content-security-policy" in answer.headers
        assert httpx.get(address, headers={"host": "example.org"}).status_code == 400
        for path in ("docs", "gradio_api/info", "monitoring", "gradio_api/file=/etc/passwd"):
            found = httpx.get(f"{address}{path}")
            assert found.status_code >= 400 or not found.json().get("named_endpoints"), path
        assert not page.share
        assert not page.analytics_enabled
    finally:
        page.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.invalid", "a..b", "999.1.1.1"])
def test_what_is_no_address_of_this_machine_is_refused_at_once(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio", reason="the extra 'app' is not installed")
    from trompe.app.sessions import Models

    monkeypatch.setattr(Models, "load", lambda *_: pytest.fail("it was too late"))
    assert main(["app", "--host", host]) == 2
    assert f"cannot listen at '{host}'" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_addresses_of_the_longer_kind(host: str) -> None:
    pytest.importorskip("gradio", reason="the extra 'app' is not installed")
    import socket

    import httpx

    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("there is no IPv6 here")
    address, page = serve(["tiny-vgg"], host=host, block=False)
    try:
        assert address.startswith("http://[::1]:")
        assert httpx.get(address).status_code == 200
        assert httpx.get(address, headers={"host": "example.org"}).status_code == 400
    finally:
        page.close()


def test_a_port_that_is_taken() -> None:
    pytest.importorskip("gradio", reason="the extra 'app' is not installed")
    import socket

    from trompe.errors import OutputError

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OutputError, match="--port"):
            serve(["tiny-vgg"], port=taken.getsockname()[1], block=False)
