"""`HttpSettings`: where a server stands, behind which proxies and for which pages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator

from automoe.errors import checked

_PREFIX = re.compile(r"(/[^/?#\s]+)*")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+")


def _root_path(given: str) -> str:
    path = unquote(given).rstrip("/")
    if not _PREFIX.fullmatch(path):
        raise ValueError("expected a path such as /translator")
    return path


def _origin(given: str) -> str:
    origin = given.rstrip("/").lower()  # as browsers write it
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        raise ValueError("expected an origin such as https://example.org, or *")
    return origin


@checked("these HTTP settings are impossible")
@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """What is around the server.

    Args:
        root_path: the path under which a proxy offers the server, e.g. `/translator`; whether the proxy
            strips it from a request makes no difference. Without a slash at its end.
        cors_origins: the origins whose pages may ask the server from a browser; `*` is any.
        forwarded_allow_ips: the proxies whose X-Forwarded-For and -Proto are believed: addresses and networks
            with commas between them, or `*`; None is uvicorn's default.

    Raises:
        InputError: listing every value that is wrong.
    """

    root_path: Annotated[str, AfterValidator(_root_path)] = ""
    cors_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()
    forwarded_allow_ips: str | None = None
