"""Serving the page: to this machine unless said otherwise, and nothing from other hosts."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from trompe.errors import OutputError, UsageError

if TYPE_CHECKING:
    import gradio as gr

_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""What a browser may load for the page: nothing from other hosts."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Headers:
    """Says with every answer what the browser may load; an application of the ASGI standard.

    Args:
        app: what answers.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", _POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host of that name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_address(host: str) -> None:
    """Refuse, before one port after the other is tried, what is no address of this machine.

    Raises:
        OutputError: if nothing could be listened at there.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.bind(place)
    except (OSError, UnicodeError) as error:
        raise OutputError(
            f"cannot listen at '{host}', which is no address of this machine: give 127.0.0.1 for "
            "this machine alone, or 0.0.0.0 for all who reach it"
        ) from error


def serve(
    models: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    device: str = "cpu",
    block: bool = True,
) -> tuple[str, gr.Blocks]:
    """Serve the page.

    Args:
        models: names of the networks that it offers; the first one is loaded at once.
        host: address that is listened at.
        port: a free one from 7860 on if not given.
        device: where the networks compute.
        block: wait until the program is interrupted.

    Returns:
        The page's address, and the page.

    Raises:
        UsageError: if gradio is not installed.
        OutputError: if the address cannot be listened at.
        TrompeError: if the first network cannot be loaded.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import gradio as gr
    except ImportError as error:
        raise UsageError(
            "the page needs gradio, which is not installed: pip install 'gradio>=6,<7', or install "
            "trompe with its extra 'app'"
        ) from error
    host = host.removeprefix("[").removesuffix("]")
    _check_address(host)
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from trompe.app.page import build, css
    from trompe.app.sessions import Models, Sessions
    from trompe.app.wishes import LARGEST_UPLOAD

    offered = Models(models, device)
    offered.load(offered.names[0])
    page = build(Sessions(offered))
    middleware = [Middleware(Headers)]
    if is_loopback(host):  # a page elsewhere cannot give this machine a name of its own
        names = ["localhost", "127.0.0.1", "[::1]", host]
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=names))
    try:
        _, address, _ = page.queue(max_size=32).launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            max_file_size=LARGEST_UPLOAD,
            prevent_thread_lock=True,
            app_kwargs={"middleware": middleware, "docs_url": None, "redoc_url": None},
            theme=gr.themes.Default(
                font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
            ),
            css=css(),
        )
    except OSError as error:
        raise OutputError(
            f"cannot listen at {host}, port {port or 'of any number'}: choose another --port"
        ) from error
    if block:
        page.block_thread()
    return address, page
