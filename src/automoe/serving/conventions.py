"""What proxies, health checks and browsers expect of any HTTP server: a path prefix, HEAD, OPTIONS."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SLASHES = re.compile("//+")


def methods_at(routes: Iterable[BaseRoute], path: str) -> frozenset[str]:
    """The methods that a path, prefix excluded, answers, `*` the server; none when there is nothing there."""
    scope = {"type": "http", "path": path, "root_path": "", "method": "GET", "headers": []}
    here = [route for route in routes if path == "*" or route.matches(scope)[0] is not Match.NONE]
    methods = {method for route in here for method in _methods(route)}
    if not methods:
        return frozenset()
    return frozenset(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set()))


def _methods(route: BaseRoute) -> set[str]:
    """Of a route; a folder of files, which is no `Route`, is there to be read."""
    return (route.methods or {"GET"}) if isinstance(route, Route) else {"GET"}


class TidyPaths:
    """ASGI middleware: a request finds its route, prefix stripped or not, slash at its end or not.

    Slashes behind each other, as of an address that ends in one and a path that begins with one, are one.

    Within, `root_path` is the prefix and `path` begins with it, as ASGI has it.

    Args:
        routes: of the application.
        root_path: the prefix, as in `HttpSettings`; without one, what the server says.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute], root_path: str) -> None:
        self._app = app
        self._routes = routes
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            root = self._root_path or scope.get("root_path", "")
            path = self._without_prefix(scope["path"], root, scope["method"])
            scope = {**scope, "root_path": root, "path": root + path}
        await self._app(scope, receive, send)

    def _without_prefix(self, path: str, root: str, method: str) -> str:
        """The path of the route that is meant.

        A prefix may be called like a route: `/translate` is the page where the prefix was not stripped,
        and the route where it was. The method tells.
        """
        path = _SLASHES.sub("/", path)
        whole = path.rstrip("/") or "/"
        if not root or not f"{path}/".startswith(f"{root}/"):
            return whole
        short = path[len(root) :].rstrip("/") or "/"
        here, page = methods_at(self._routes, short), short == "/"
        meant_whole = page and method in methods_at(self._routes, whole) - here
        return short if here and not meant_whole else whole


class HeadAndOptions:
    """ASGI middleware: HEAD is GET without the body, OPTIONS tells the methods, as does a refusal (405).

    Args:
        routes: of the application.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        allowed = methods_at(self._routes, scope["path"].removeprefix(scope["root_path"]))
        headers = {"Allow": ", ".join(sorted(allowed))}
        if method == "OPTIONS" and allowed:
            await Response(status_code=204, headers=headers)(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:
                MutableHeaders(scope=message).update(headers)
            if message["type"] == "http.response.body" and method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        asked = "GET" if method == "HEAD" else method
        await self._app({**scope, "method": asked}, receive, answer)
