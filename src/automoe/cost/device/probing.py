"""Measuring a device: all probes of a space, and the profile that follows from them."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from automoe.cost.beside import Ratio, Reference
from automoe.cost.device.parts import Inventory, Term
from automoe.cost.device.probes import TINY_VOCABULARY, Probe, needed_terms, probes
from automoe.cost.device.profile import DeviceProfile, Entry, Quality, this_machine
from automoe.cost.device.solving import StackMs, explained, solve
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import STACKS, Stack
from automoe.design.space import SearchSpace
from automoe.errors import InputError

TURNS = 12
FEWEST_TURNS = 10

Measure: TypeAlias = Callable[[Probe, int], Ratio]
"""Measure a probe, beside the space's largest dense Transformer, in so many turns."""


def make_profile(
    space: SearchSpace,
    protocol: MeasuringProtocol,
    output: Path,
    say: Callable[[str], None],
    *,
    turns: int = TURNS,
    progress: Callable[[int, int, str], None] | None = None,
    measure: Measure | None = None,
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


def measuring(space: SearchSpace, protocol: MeasuringProtocol) -> Measure:
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
    quality = Quality(
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
        space=json.loads(json.dumps(asdict(space))),  # lists for tuples
        qkv_dim=space.qkv_dim,
        entries=tuple(Entry.of(term, ms) for term, ms in sorted(times.items())),
    )


def _error(inventory: Inventory, times: dict[Term, float], probe: Probe, measured: StackMs) -> float:
    expected_ms = sum(explained(inventory, times, probe).values())
    measured_ms = sum(measured[stack] for stack in STACKS)
    return abs(expected_ms - measured_ms) / measured_ms


def _fingerprint(todo: Sequence[Probe], protocol: MeasuringProtocol, turns: int) -> str:
    """Of everything that measurements must have in common to be put together."""
    machine = this_machine(protocol.backend)
    values = [[asdict(probe) for probe in todo], asdict(protocol), asdict(machine), turns]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Line:
    ratio: Ratio
    seconds: float


class _Journal:
    """The measurements so far, a JSON line each; the first line says what they are of.

    Measurements of something else are discarded; a last line that was cut off is, too.
    """

    def __init__(self, output: Path, fingerprint: str, say: Callable[[str], None]) -> None:
        self.path = output.with_name(f"{output.name}.partial.jsonl")
        self.lines: dict[int, _Line] = {}
        text = self._read()
        whole_lines = text[: text.rfind("\n") + 1].splitlines()
        records = [self._parse(number, line) for number, line in enumerate(whole_lines, start=1)]
        if records and records[0].get("fingerprint") == fingerprint:
            for number, record in enumerate(records[1:], start=2):
                self._take(number, record)
        elif text:
            say(f"{self.path}: is of another space, protocol or machine; starting over")
        try:
            with self.path.open("w", encoding="utf-8") as file:
                file.write(json.dumps({"fingerprint": fingerprint}) + "\n")
                for index, line in self.lines.items():
                    file.write(self._text(index, line))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def add(self, index: int, ratio: Ratio, seconds: float) -> None:
        self.lines[index] = line = _Line(ratio, seconds)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self._text(index, line))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _read(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error

    def _parse(self, number: int, line: str) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise self._damaged(f"line {number}: {error}") from error
        if not isinstance(record, dict):
            raise self._damaged(f"line {number}: is no record")
        return record

    def _take(self, number: int, record: dict[str, Any]) -> None:
        try:
            line = _Line(Ratio(**record["ratio"]), float(record["seconds"]))
            self.lines[int(record["probe"])] = line
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(f"line {number}: {error}") from error

    def _damaged(self, problem: str) -> InputError:
        return InputError(f"{self.path}: is damaged", [problem, "delete it; measuring then starts over"])

    @staticmethod
    def _text(index: int, line: _Line) -> str:
        values = {"probe": index, "ratio": asdict(line.ratio), "seconds": line.seconds}
        return json.dumps(values) + "\n"


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written", [error.strerror or str(error)])
