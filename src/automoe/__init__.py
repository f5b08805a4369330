"""AutoMoE: search, train and deploy heterogeneous Mixture-of-Experts Transformers for translation.

The names most programs need; each is imported when it is first used, so that `import automoe` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automoe.cost.counting import count
    from automoe.cost.measure import measure_latency, random_engine
    from automoe.cost.protocol import MeasuringProtocol
    from automoe.design.architecture import Architecture
    from automoe.design.architecture_file import load_architecture
    from automoe.design.space import SearchSpace, load_space
    from automoe.errors import InputError
    from automoe.inference.backends import load_engine, make_engine
    from automoe.inference.model_folder import load_model
    from automoe.inference.translator import Translator
    from automoe.model.sharing import Supernet
    from automoe.model.transformer import Transformer

__version__ = "0.1.0"

_HOMES = {
    "Architecture": "design.architecture",
    "InputError": "errors",
    "MeasuringProtocol": "cost.protocol",
    "SearchSpace": "design.space",
    "Supernet": "model.sharing",
    "Transformer": "model.transformer",
    "Translator": "inference.translator",
    "count": "cost.counting",
    "load_architecture": "design.architecture_file",
    "load_engine": "inference.backends",
    "load_model": "inference.model_folder",
    "load_space": "design.space",
    "make_engine": "inference.backends",
    "measure_latency": "cost.measure",
    "random_engine": "cost.measure",
}

__all__ = [
    "Architecture",
    "InputError",
    "MeasuringProtocol",
    "SearchSpace",
    "Supernet",
    "Transformer",
    "Translator",
    "count",
    "load_architecture",
    "load_engine",
    "load_model",
    "load_space",
    "make_engine",
    "measure_latency",
    "random_engine",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'automoe' has no attribute {name!r}")
    return getattr(import_module(f"automoe.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
