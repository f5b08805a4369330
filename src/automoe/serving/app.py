"""The HTTP application: routes, and which failure is answered how."""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from automoe.data.tokenizer import Tokenizer
from automoe.errors import InputError
from automoe.evaluation.routing import Router
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Engine
from automoe.serving.batcher import Batcher, QueueFullError
from automoe.serving.body_limit import BodyLimit
from automoe.serving.conventions import HeadAndOptions, TidyPaths
from automoe.serving.http_settings import HttpSettings
from automoe.serving.limits import ServingLimits
from automoe.serving.messages import (
    ONE,
    SEVERAL,
    ErrorMessage,
    ExplainRequest,
    ExplainResponse,
    HealthMessage,
    SentenceMessage,
    TranslateRequest,
    TranslateResponse,
    TranslationMessage,
)
from automoe.serving.metrics import CountedRequests, Metrics
from automoe.serving.service import Service, TooLargeError
from automoe.serving.translation import SentenceTranslator

PAGE = Path(__file__).parent / "page"
RETRY_AFTER_SECONDS = 1
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'self'",
    "X-Content-Type-Options": "nosniff",
}
# The labels of the metrics.
_COUNTED = frozenset(
    {"/", "/translate", "/explain", "/health", "/healthz", "/metrics", "/docs", "/openapi.json"}
)
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorMessage, "description": "The body is not UTF-8 or nested too deeply."},
    413: {"model": ErrorMessage, "description": "Too many bytes, texts, characters or lines."},
    415: {"model": ErrorMessage, "description": "The body is compressed."},
    422: {"model": ErrorMessage, "description": "Not JSON, a wrong type, or impossible settings."},
    503: {"model": ErrorMessage, "description": "The queue is full; see Retry-After."},
    504: {"model": ErrorMessage, "description": "Not translated in time."},
}
_Answer = TypeVar("_Answer")


def create_app(
    router: Router,
    engine: Engine,
    tokenizer: Tokenizer,
    settings: BeamSettings | None = None,
    limits: ServingLimits | None = None,
    http: HttpSettings | None = None,
) -> FastAPI:
    """The application: `/translate`, `/explain`, `/healthz`, `/metrics`, `/docs`, and the page at `/`.

    A slash at a path's end is forgiven, HEAD and OPTIONS are answered, and `/health` is `/healthz`.
    Nothing is read from disk at a request but the page's own files, and no page needs another host.

    Args:
        router: what explains. `engine`: what translates. `tokenizer`: theirs.
        settings: of the beam search, where a request says nothing else.
        limits: on requests, queue and batches.
        http: the prefix of its paths, and whose pages may ask it.
    """
    limits, http = limits or ServingLimits(), http or HttpSettings()
    translator = SentenceTranslator(router, engine, tokenizer, limits.batch_tokens)
    # Bound below: the metrics read the queue's length, the queue reports its batches.
    batcher = Batcher(translator, limits, lambda sentences: metrics.observe_batch(sentences))
    metrics = Metrics(lambda: batcher.waiting)
    service = Service(batcher, tokenizer, settings or BeamSettings(), limits)
    working: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        working.append(asyncio.create_task(batcher.run()))
        yield
        # The server has answered every request by now, or given up on it.
        working.pop().cancel()

    app = FastAPIOffline(
        title="AutoMoE",
        summary="Translation, and which expert each token used.",
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )

    @app.post("/translate", responses=_REFUSALS)
    async def translate(body: TranslateRequest, request: Request) -> TranslateResponse:
        """Translate one text or several."""
        texts = [body.text] if isinstance(body.text, str) else body.text
        work = service.translate(texts, body.beam_size, body.n_best)
        translated = await _in_time(work, request, limits.request_seconds)
        return TranslateResponse(translations=[TranslationMessage.of(text) for text in translated])

    @app.post("/explain", responses=_REFUSALS)
    async def explain(body: ExplainRequest, request: Request) -> ExplainResponse:
        """Translate a text and tell, token by token and layer by layer, which experts were used."""
        work = service.translate([body.text], body.beam_size, explain=True)
        (translated,) = await _in_time(work, request, limits.request_seconds)
        return ExplainResponse(
            translation=translated.text,
            sentences=[
                SentenceMessage.of(sentence, tokenizer)
                for line in translated.lines
                for sentence in line.sentences
            ],
        )

    @app.get("/health", include_in_schema=False)
    @app.get("/healthz", responses={503: {"model": ErrorMessage, "description": "It no longer translates."}})
    async def healthz() -> HealthMessage:
        """Whether the server can translate."""
        if not working or working[0].done():
            raise HTTPException(503, "the translating thread has stopped: restart the server")
        return HealthMessage(status="ok", waiting_sentences=batcher.waiting)

    @app.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Requests, latency, batch sizes and queue length, for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(_page(request.scope["root_path"]), headers=_PAGE_HEADERS)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> FileResponse:
        return FileResponse(PAGE / "icon.svg")

    @app.get("/robots.txt", include_in_schema=False)
    async def robots() -> PlainTextResponse:
        return PlainTextResponse("User-agent: *\nDisallow: /\n")

    app.mount("/page", StaticFiles(directory=PAGE, packages=[("automoe.web", "assets")]))
    # The last one added is the first to see a request.
    app.add_middleware(BodyLimit, body_bytes=limits.body_bytes)
    app.add_middleware(HeadAndOptions, routes=app.routes)
    if http.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=http.cors_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["Content-Type"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(CountedRequests, metrics=metrics, paths=_COUNTED)
    app.add_middleware(TidyPaths, routes=app.routes, root_path=http.root_path)
    _answer_failures(app)
    return app


def _page(root_path: str) -> str:
    """The page; what its links are relative to is known here where a proxy offers it under a prefix."""
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    return (
        text.replace('<base href="./">', f'<base href="{html.escape(quote(root_path))}/">')
        if root_path
        else text
    )


async def _in_time(work: Coroutine[Any, Any, _Answer], request: Request, seconds: float) -> _Answer:
    """The result of `work`, which is cancelled when its time is up or its client gone.

    Raises:
        HTTPException: 504 when the time is up; 499, which nobody reads, when the client is gone.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise HTTPException(499, "the client closed the connection")
        raise HTTPException(504, f"not translated within {seconds:g} s: try again later, or with less text")
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    """Returns when the client is gone; the request's body has been read already."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer_failures(app: FastAPI) -> None:
    """Every failure is answered with an `ErrorMessage`."""

    def answer(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse(ErrorMessage(error=message).model_dump(), status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return answer(422, "; ".join(dict.fromkeys(map(_sentence, error.errors()))))

    @app.exception_handler(InputError)
    async def impossible(_: Request, error: InputError) -> JSONResponse:
        return answer(422, ": ".join(filter(None, [error.summary, ", ".join(error.problems)])))

    @app.exception_handler(TooLargeError)
    async def too_large(_: Request, error: TooLargeError) -> JSONResponse:
        return answer(413, str(error))

    @app.exception_handler(QueueFullError)
    async def full(_: Request, error: QueueFullError) -> JSONResponse:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return answer(503, "the server is busy: try again later", headers)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        coding = request.headers.get("content-encoding", "identity")
        if error.status_code == 400 and coding.strip().lower() != "identity":
            message = f"the body cannot be read: its Content-Encoding, {coding}, is not supported"
            return answer(415, message, {"Accept-Encoding": "identity"})
        if error.status_code == 400 and error.__cause__ is not None:  # FastAPI hides what went wrong
            return answer(400, f"the body cannot be read: {error.__cause__}")
        headers = dict(error.headers) if error.headers else None
        return answer(error.status_code, str(error.detail), headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        # Starlette raises the error again once this is sent, so the log has its traceback.
        return answer(500, "this is the server's fault; its log says more")


def _sentence(problem: Any) -> str:
    """One problem that pydantic found, in one sentence that names the field."""
    if problem["type"] == "json_invalid":
        return f"the body is not JSON: {problem['ctx']['error']} at character {problem['loc'][-1]}"
    if problem["type"] == "model_attributes_type":
        return "the body is not a JSON object, or its Content-Type is not application/json"
    where = ".".join(str(part) for part in problem["loc"][1:] if part not in (ONE, SEVERAL))
    return f"{where or 'the body'}: {problem['msg'].removeprefix('Value error, ')}"
