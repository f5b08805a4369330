"""A model folder behind a socket."""

from __future__ import annotations

import contextlib
import math
import socket
import sys
from dataclasses import replace
from pathlib import Path

import uvicorn

from automoe.errors import InputError
from automoe.inference.backends import Backend, Precision, engine_of, usual_threads
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.graph_model import ModelGraph
from automoe.inference.model_folder import read_model, told_of_unused_experts
from automoe.inference.routing_graph import OnnxRouter
from automoe.serving.app import create_app
from automoe.serving.http_settings import HttpSettings
from automoe.serving.limits import ServingLimits

LARGEST_PORT = 65535
BACKLOG = 2048  # connections the system holds before the server accepts them


def serve(
    folder: Path,
    host: str,
    port: int,
    settings: BeamSettings,
    backend: Backend = "onnx",
    precision: Precision = "float32",
    threads: int | None = None,
    shortlist: int = 0,
    limits: ServingLimits | None = None,
    http: HttpSettings | None = None,
) -> None:
    """Serve a model until interrupted or terminated; what has been asked by then is still answered.

    Args:
        folder: the model folder; nothing else of the disk is served.
        host, port: where to listen; port 0 takes a free one. The address is printed when it listens.
        settings: of the beam search, where a request says nothing else.
        backend, precision: of the engine that translates; experts are explained in float32.
        threads: of whatever computes; None is as of `load_engine`. `shortlist`: likewise.
        limits: on requests, queue and batches; the largest beam is at least that of `settings`.
        http: what is around the server.

    Raises:
        InputError: the folder is no model or lacks the shortlist asked for, there is no such engine, or the
            address cannot be listened on.
    """
    limits, http = limits or ServingLimits(), http or HttpSettings()
    limits = replace(limits, beam_size=max(limits.beam_size, settings.beam_size))
    model = read_model(folder)
    engine = engine_of(model, backend, precision, threads, model.shortlister(shortlist))
    router = OnnxRouter(ModelGraph.of(model), threads or usual_threads())
    app = create_app(router, engine, model.tokenizer, settings, limits, http)
    with _listen(host, port) as listening:
        address = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(
            app,
            log_level="warning",
            backlog=BACKLOG,
            forwarded_allow_ips=http.forwarded_allow_ips,
            timeout_graceful_shutdown=math.ceil(limits.request_seconds),
        )
        if told := told_of_unused_experts(folder):
            print(told, file=sys.stderr)
        print(f"Serving {folder} at http://{address}:{listening.getsockname()[1]}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl+C, raised again after the graceful shutdown
            uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= LARGEST_PORT:
        raise InputError(f"cannot listen on {host}, port {port}", [f"port: 0 to {LARGEST_PORT}"])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise InputError(f"cannot listen on {host}, port {port}", [str(error)]) from error
