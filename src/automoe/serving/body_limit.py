"""Refusing large bodies before they are in memory."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware: whoever reads a body of more than `body_bytes` gets an `HTTPException` of 413.

    Starlette has one too, whose answer is plain text without the limit.
    """

    def __init__(self, app: ASGIApp, body_bytes: int) -> None:
        self._app = app
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = int(Headers(scope=scope).get("content-length", 0))
        received = 0

        async def limited() -> Message:
            nonlocal received
            if declared <= self._body_bytes:
                message = await receive()
                received += len(message.get("body", b""))
                if received <= self._body_bytes:
                    return message
            raise HTTPException(413, f"the body is too large: send at most {self._body_bytes} bytes")

        await self._app(scope, limited, send)
