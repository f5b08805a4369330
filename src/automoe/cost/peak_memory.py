"""The memory that translating really takes: of a fresh process that does nothing else.

The counted `memory_bytes` has weights and intermediate values alone. What an engine keeps beside them (packed
copies of weights, its arena, pages of the model's file) only a measurement tells.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from automoe.cost.measure import random_source
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import dense
from automoe.errors import InputError, checked, validate_plain
from automoe.inference.backends import engine_of
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Engine
from automoe.inference.model_folder import StoredModel, read_model
from automoe.inference.weight_shapes import weight_shapes

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # what the kernel takes for it
_SUMMARY = "the peak memory of this model cannot be measured"


@checked("this is no measurement of memory")
@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Resident bytes beyond those of a process that has translated with a tiny model.

    Attributes:
        loading_bytes: the most while the model was read and its engine made.
        peak_memory_bytes: the most while a batch was translated; where the system cannot tell this apart, the
            larger of both.
    """

    loading_bytes: int
    peak_memory_bytes: int


def measure_peak_memory(folder: Path, protocol: MeasuringProtocol) -> PeakMemory:
    """Load the model of a folder and translate one random batch, in a process of its own.

    Args:
        protocol: engine, threads, lengths, beam and batch; vocabulary and norm are the model's.

    Raises:
        InputError: that process failed, or the system does not tell its memory; says how it ended.
    """
    command = [sys.executable, "-m", "automoe.cost.peak_memory", str(folder), json.dumps(asdict(protocol))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        silent = (
            f"its process ended with {done.returncode} and said nothing, as where the memory is not enough"
        )
        raise InputError(f"{folder}: {_SUMMARY}", (done.stderr.strip().splitlines() or [silent])[-1:])
    return validate_plain(PeakMemory, json.loads(done.stdout), f"{folder}: {_SUMMARY}")


def _measure_here(folder: Path, protocol: MeasuringProtocol) -> PeakMemory:
    """As `measure_peak_memory`, in this process, which should be fresh."""
    stored = read_model(folder)  # weights are read when they are asked for
    protocol = replace(protocol, vocabulary_size=stored.vocabulary_size, norm=stored.options.norm)
    # Libraries, threads and their stacks are there before the first reading.
    _translate(_engine(_tiny(stored), protocol), protocol)
    before = _resident_bytes()
    _forget_peak()
    engine = _engine(stored, protocol)
    loading = _peak_bytes() - before
    _forget_peak()
    _translate(engine, protocol)
    return PeakMemory(max(0, loading), max(0, _peak_bytes() - before))


def _tiny(stored: StoredModel) -> StoredModel:
    """A model of this one's tokenizer and options, but with next to no weights."""
    architecture = dense(8, 8, 1, 1, 1)
    shapes = weight_shapes(architecture, stored.vocabulary_size, stored.options.norm)
    weights = {name: np.ones(shape, dtype=np.float32) for name, shape in shapes.items()}
    return replace(stored, architecture=architecture, weights=weights)


def _engine(stored: StoredModel, protocol: MeasuringProtocol) -> Engine:
    shortlister = protocol.shortlister()
    return engine_of(stored, protocol.backend, protocol.precision, protocol.threads, shortlister)


def _translate(engine: Engine, protocol: MeasuringProtocol) -> None:
    shape = protocol.batch, protocol.source_length
    source_BS = random_source(*shape, engine.vocabulary_size, np.random.default_rng(0))
    engine.search(source_BS, BeamSettings.exactly(protocol.target_length, protocol.beam_size))


def _resident_bytes() -> int:
    return _status_bytes("VmRSS") or _peak_bytes()


def _peak_bytes() -> int:
    # Linux's `ru_maxrss` starts at what the parent had, `VmHWM` does not.
    found = _status_bytes("VmHWM")
    if found is None:
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        found = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found


def _status_bytes(name: str) -> int | None:
    """A figure of Linux; None elsewhere."""
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def _forget_peak() -> None:
    """The peak is what is resident now, where the system can do that."""
    with suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")


if __name__ == "__main__":
    try:
        wanted = validate_plain(MeasuringProtocol, json.loads(sys.argv[2]), _SUMMARY)
        print(json.dumps(asdict(_measure_here(Path(sys.argv[1]), wanted))))
    except (InputError, ImportError) as error:
        sys.exit(" ".join(str(error).split()))
