"""What the package alone does not bring: the libraries of its extras, and how they are installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from automoe.errors import InputError

# What is imported from each extra of pyproject.toml.
EXTRAS = {
    "train": (
        "datasets",
        "jinja2",
        "lightning",
        "lxml",
        "markupsafe",
        "matplotlib",
        "pyarrow",
        "sacrebleu",
        "sacremoses",
        "scipy",
        "sentencepiece",
        "sklearn",
        "tensorboard",
        "torch",
    ),
    "serve": ("fastapi", "fastapi_offline", "prometheus_client", "starlette", "uvicorn"),
}


@contextmanager
def named_extras() -> Iterator[None]:
    """A library of an extra that is missing within is one message that names the extra.

    Raises:
        InputError: that message.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        for extra, modules in EXTRAS.items():
            if missing in modules:
                mend = f"pip install 'automoe[{extra}]'"
                raise InputError(f"this needs {missing}, which is not installed", [mend]) from error
        raise
