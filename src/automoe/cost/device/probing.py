"""Measuring a device: all probes of a space, and the profile that follows from them."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from automoe.cost.beside import Ratio, Reference
from automoe.cost.device.parts import Inventory, Term
from automoe.cost.device.probes import TINY_VOCABULARY, Probe, needed_terms, probes
from automoe.cost.device.profile import DeviceProfile, PartEntry, ProfileQuality
from automoe.cost.device.solving import StackMs, explained, solve
from automoe.cost.machine import this_machine
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import STACKS, Stack
from automoe.design.space import SearchSpace
from automoe.errors import InputError
from automoe.storage import append_to_journal, bytes_digest, read_journal, write_journal

TURNS = 12
FEWEST_TURNS = 10
_START_OVER = "delete it; measuring then starts over"

MeasureProbe: TypeAlias = Callable[[Probe, int], Ratio]
"""Measure a probe, beside the space's largest dense Transformer, in so many turns."""


def make_profile(
    space: SearchSpace,
    protocol: MeasuringProtocol,
    output: Path,
    say: Callable[[str], None],
    *,
    turns: int = TURNS,
    progress: Callable[[int, int, str], None] | None = None,
    measure: MeasureProbe | None = None,
) -> DeviceProfile:
    """Measure everything that architectures of `space` are made of, on this machine, and write the profile.

    All probes are measured beside one reference, the space's largest dense Transformer, so that drift of
    the machine cancels. Every measurement is kept at once in `OUTPUT.partial.jsonl`: a profile that was
    interrupted continues there. The file goes when the profile is written.

    Args:
        output: the profile's JSON. `say`: hears a line of text when there is something to know.
        turns: of each probe. `progress`: hears (probes done, of how many, the last one's latency).
        measure: replaces the measuring.

    Raises:
        InputError: fewer than 10 turns; there is no such backend or precision; the partial file is damaged;
            the disk is full or refuses.
    """
    if turns < FEWEST_TURNS:
        raise InputError("this profile cannot be measured", [f"turns: at least {FEWEST_TURNS}, not {turns}"])
    todo = probes(space)
    measure = measure or measuring(space, protocol)
    journal = _Journal(output, _fingerprint(todo, protocol, turns), say)
    if journal.lines:
        say(f"{journal.path}: {len(journal.lines)} of {len(todo)} measurements were made before")
    for index, probe in enumerate(todo):
        if index not in journal.lines:
            started = time.monotonic()
            ratio = measure(probe, turns)
            if ratio.noisy:
                ratio = min(ratio, measure(probe, turns), key=lambda x: (x.noisy, x.spread))
            journal.add(index, ratio, time.monotonic() - started)
            if progress is not None:
                latency_ms = sum(stack_ms(ratio, reference_ms([ratio])).values())
                progress(index + 1, len(todo), f"{latency_ms:.0f} ms")
    ratios = [journal.lines[index].ratio for index in range(len(todo))]
    seconds = sum(line.seconds for line in journal.lines.values())
    profile = _profile(space, protocol, list(zip(todo, ratios, strict=True)), turns, seconds)
    profile.save(output)
    journal.path.unlink()
    if profile.quality.noisy:
        say(f"the machine was too busy during {profile.quality.noisy} of {len(todo)} measurements")
    return profile


def measuring(space: SearchSpace, protocol: MeasuringProtocol) -> MeasureProbe:
    """Measuring beside the largest dense Transformer of a space; it is loaded at the first measurement."""

    @cache
    def reference() -> Reference:
        return Reference(space.largest_dense(), protocol)

    def measure(probe: Probe, turns: int) -> Ratio:
        size = protocol.vocabulary_size if probe.full_vocabulary else TINY_VOCABULARY
        return reference().measure(probe.architecture, turns, vocabulary_size=size)

    return measure


def reference_ms(ratios: Sequence[Ratio]) -> dict[Stack, float]:
    """The reference's time over a whole session: medians."""
    return {
        "encoder": statistics.median(ratio.reference_encoder_ms for ratio in ratios),
        "decoder": statistics.median(ratio.reference_decoder_ms for ratio in ratios),
    }


def stack_ms(ratio: Ratio, reference: StackMs) -> dict[Stack, float]:
    """The times of a model's stacks when the reference takes these times."""
    return {"encoder": ratio.encoder * reference["encoder"], "decoder": ratio.decoder * reference["decoder"]}


def _profile(
    space: SearchSpace,
    protocol: MeasuringProtocol,
    measured: Sequence[tuple[Probe, Ratio]],
    turns: int,
    seconds: float,
) -> DeviceProfile:
    inventory = needed_terms(space)
    ratios = [ratio for _, ratio in measured]
    reference = reference_ms(ratios)
    times_ms = [(probe, stack_ms(ratio, reference)) for probe, ratio in measured]
    times_ms.append((Probe(space.largest_dense()), reference))  # it was measured, too, best of all
    times = solve(inventory, times_ms)
    whole = [(index, probe, ms) for index, (probe, ms) in enumerate(times_ms) if probe.whole]
    whole_errors = [
        # Predicted from all the others.
        _error(inventory, solve(inventory, times_ms[:index] + times_ms[index + 1 :]), probe, ms)
        for index, probe, ms in whole
    ]
    stolen = [ratio.stolen_share for ratio in ratios if ratio.stolen_share is not None]
    quality = ProfileQuality(
        probes=len(measured),
        turns=turns,
        seconds=seconds,
        noisy=sum(ratio.noisy for ratio in ratios),
        spread_percent=100 * statistics.median(ratio.spread for ratio in ratios),
        stolen_share=statistics.fmean(stolen) if stolen else None,
        fit_error_percent=100 * statistics.fmean(_error(inventory, times, *x) for x in times_ms),
        whole_models=len(whole),
        whole_error_percent=100 * statistics.fmean(whole_errors),
        reference=str(space.largest_dense()),
        reference_encoder_ms=reference["encoder"],
        reference_decoder_ms=reference["decoder"],
    )
    return DeviceProfile(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine(protocol.backend),
        protocol=protocol,
        quality=quality,
        space=json.loads(json.dumps(space.to_dict())),  # lists for tuples
        qkv_dim=space.qkv_dim,
        entries=tuple(PartEntry.of(term, ms) for term, ms in sorted(times.items())),
    )


def _error(inventory: Inventory, times: dict[Term, float], probe: Probe, measured: StackMs) -> float:
    expected_ms = sum(explained(inventory, times, probe).values())
    measured_ms = sum(measured[stack] for stack in STACKS)
    return abs(expected_ms - measured_ms) / measured_ms


def _fingerprint(todo: Sequence[Probe], protocol: MeasuringProtocol, turns: int) -> str:
    """Of everything that measurements must have in common to be put together."""
    machine = this_machine(protocol.backend)
    models = [{**asdict(probe), "architecture": probe.architecture.to_dict()} for probe in todo]
    values = [models, protocol.plain(), asdict(machine), turns]
    # Not `digest`: its order of keys is not the one that partial files have always had.
    return bytes_digest(json.dumps(values).encode())


@dataclass(frozen=True, slots=True)
class _Line:
    ratio: Ratio
    seconds: float


class _Journal:
    """The measurements so far, a record each; the first record says what they are of.

    Measurements of something else are discarded.
    """

    def __init__(self, output: Path, fingerprint: str, say: Callable[[str], None]) -> None:
        self.path = output.with_name(f"{output.name}.partial.jsonl")
        header = {"fingerprint": fingerprint}
        self.lines: dict[int, _Line] = {}
        found = read_journal(self.path, _record, _START_OVER)
        if found[:1] == [header]:
            self.lines = dict(filter(None, read_journal(self.path, _line, _START_OVER)))
            return
        if found:
            say(f"{self.path}: is of another space, protocol or machine; starting over")
        write_journal(self.path, [header])

    def add(self, index: int, ratio: Ratio, seconds: float) -> None:
        self.lines[index] = _Line(ratio, seconds)
        record = {"probe": index, "ratio": asdict(ratio), "seconds": seconds}
        append_to_journal(self.path, [record], durable=False)


def _record(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record as it is, which may be of other measurements, but not of something else altogether."""
    if not {"fingerprint", "probe"} & plain.keys():
        raise ValueError("is no measurement")
    return plain


def _line(plain: Mapping[str, Any]) -> tuple[int, _Line] | None:
    """The measurement of a record and the index of its probe; None for the first record."""
    if "fingerprint" in plain:
        return None
    return int(plain["probe"]), _Line(Ratio(**plain["ratio"]), float(plain["seconds"]))
