"""Made-up requests to the server: those of its OpenAPI document, valid and not, and bodies of any bytes."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.python import asgi

from automoe.evaluation.expert_use import ModelRouter
from automoe.inference.backends import make_engine
from automoe.serving.app import create_app
from helpers.fuzzed import VALUES, End, Kind, changed, damaged
from helpers.served import tiny_model


@cache
def _schema(of: str) -> schemathesis.BaseSchema:
    """Of a server for one kind: schemathesis stops it when the test that used it ends."""
    model, tokenizer = tiny_model()
    app = create_app(ModelRouter(model), make_engine(model), tokenizer)
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def _cases() -> st.SearchStrategy[Any]:
    """Requests as the document describes them, and such as break its rules."""
    schema = _schema("requests")
    posts = [found.ok() for found in schema.get_all_operations() if found.ok().method == "post"]
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    strategies = [post.as_strategy(generation_mode=mode) for post in posts for mode in modes]
    return st.one_of(schema.as_strategy(), *strategies)


_PLAIN = {"text": ["the cat sat", "on the mat\na dog"], "beam_size": 2, "n_best": 1}
_JSON = (changed(_PLAIN) | VALUES).map(lambda value: json.dumps(value, default=str).encode())
_BODIES = st.one_of(
    _JSON,
    _JSON.flatmap(damaged),
    st.sampled_from(
        [b"", b"[" * 10_000, b'{"text": "\\ud800"}', b"9" * 5000, b'{"text": "' + b"x" * 30_000 + b'"}']
    ),
)
_TYPES = [
    "application/json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/json; charset=x",
    "",
]
_PATHS = [
    "/translate",
    "/explain",
    "/translate/",
    "/healthz",
    "/health",
    "/metrics",
    "/",
    "/docs",
    "/page/x",
    "/%00",
]
_METHODS = ["POST", "POST", "POST", "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "X"]


@st.composite
def _raw_requests(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "method": draw(st.sampled_from(_METHODS)),
        "url": draw(st.sampled_from([*_PATHS[:2] * 5, *_PATHS])),
        "data": draw(_BODIES),
        "headers": {"Content-Type": draw(st.sampled_from([*_TYPES[:1] * 5, *_TYPES]))},
    }


def _end(status: int, said: str) -> End:
    assert status < 500, f"{status}: {said}"
    return "result" if status < 400 else "refused"


def _use_case(case: Any) -> End:
    answer = case.call()
    return _end(answer.status_code, answer.text)


def _use_raw(request: dict[str, Any]) -> End:
    with asgi.get_client(_schema("bodies").app) as client:
        answer = client.request(**request)
    return _end(answer.status_code, answer.text)


REQUESTS: dict[str, Kind] = {
    "requests": Kind(st.deferred(_cases), _use_case),
    "bodies": Kind(_raw_requests(), _use_raw),
}
