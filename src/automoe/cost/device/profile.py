"""`DeviceProfile`: the times of parts on one device, and the latency of any architecture made of them.

A profile is a small JSON file that says where it is from. It holds for one device, backend, precision,
number of threads and shape of the task (`MeasuringProtocol`); `probing.make_profile` makes it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

from automoe.cost.device.parts import Inventory, Part, Term
from automoe.cost.machine import Machine, this_machine
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture, Stack
from automoe.design.space import SearchSpace
from automoe.errors import InputError
from automoe.storage import read_model, write_text

Kind = Literal["overhead", "output", "attention", "experts"]

_KINDS: dict[Part, Kind] = {
    "overhead": "overhead",
    "output": "output",
    "self_attention": "attention",
    "average_attention": "attention",
    "ssru": "attention",
    "cross_attention": "attention",
    "keys_values": "attention",
    "experts": "experts",
}
_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class PartLatency:
    """The time of one kind of work in one layer; `layer` None: of the stack as a whole."""

    stack: Stack
    layer: int | None
    kind: Kind
    ms: float


@dataclass(frozen=True, slots=True)
class LatencyParts:
    """A predicted latency: `latency_ms = encoder_ms + decoder_ms`, the sums of the stacks' `parts`."""

    latency_ms: float
    encoder_ms: float
    decoder_ms: float
    parts: tuple[PartLatency, ...]


class PartEntry(BaseModel):
    """The time of one part; its fields are those of `Term`, left out where they do not matter."""

    model_config = _STRICT

    stack: Stack
    part: Part
    width: int
    heads: int | None = None
    layers_attended: int | None = None
    experts: int | None = None
    top_k: int | None = None
    ffn_size: int | None = None
    ms: FiniteFloat = Field(ge=0)

    @staticmethod
    def of(term: Term, ms: float) -> PartEntry:
        """The entry of a part."""
        sizes = {name: value for name, value in term._asdict().items() if value}
        if term.part == "experts":
            sizes["ffn_size"] = term.ffn_size  # 0 is a size
        return PartEntry(**sizes, ms=ms)

    @property
    def term(self) -> Term:
        """The part."""
        return Term(
            self.stack,
            self.part,
            self.width,
            self.heads or 0,
            self.layers_attended or 0,
            self.experts or 0,
            self.top_k or 0,
            self.ffn_size or 0,
        )


class ProfileQuality(BaseModel):
    """How quiet the machine was, and how well the parts add up to what was measured.

    Attributes:
        probes: models measured. `turns`: of each. `seconds`: the measuring took.
        noisy: of the probes, how many stayed noisy (`Latency.noisy`) when measured again.
        spread_percent: median over the probes of `Ratio.spread`.
        stolen_share: mean over the probes; None where the system does not tell.
        fit_error_percent: mean absolute error on the probes.
        whole_models: random architectures of the space among the probes.
        whole_error_percent: mean absolute error on those, each predicted without it.
        reference: the architecture beside which everything was measured, as its one line of text.
        reference_encoder_ms, reference_decoder_ms: its times, medians: how fast the machine was then.
    """

    model_config = _STRICT

    probes: int
    turns: int
    seconds: FiniteFloat
    noisy: int
    spread_percent: FiniteFloat
    stolen_share: FiniteFloat | None = None
    fit_error_percent: FiniteFloat
    whole_models: int
    whole_error_percent: FiniteFloat
    reference: str
    reference_encoder_ms: FiniteFloat
    reference_decoder_ms: FiniteFloat

    @property
    def reference_ms(self) -> dict[Stack, float]:
        """The reference's times by stack."""
        return {"encoder": self.reference_encoder_ms, "decoder": self.reference_decoder_ms}


class DeviceProfile(BaseModel):
    """The times of all parts of a search space on one device.

    Attributes:
        protocol: what was measured. `machine`, `date`: where and when (UTC).
        space: whose parts, as `SearchSpace.from_dict` reads it.
        qkv_dim: of every attention. `entries`: the parts.
    """

    model_config = _STRICT

    format: Literal["automoe device profile 1"] = "automoe device profile 1"
    date: str
    machine: Machine
    protocol: MeasuringProtocol
    quality: ProfileQuality
    space: dict[str, Any]
    qkv_dim: int
    entries: tuple[PartEntry, ...]

    @field_validator("space")
    @classmethod
    def _is_a_space(cls, value: dict[str, Any]) -> dict[str, Any]:
        SearchSpace.from_dict(value)
        return value

    @model_validator(mode="after")
    def _no_part_twice(self) -> DeviceProfile:
        if len({entry.term for entry in self.entries}) < len(self.entries):
            raise ValueError("entries: a part has two times")
        return self

    @cached_property
    def _ms(self) -> dict[Term, float]:
        return {entry.term: entry.ms for entry in self.entries}

    @cached_property
    def _inventory(self) -> Inventory:
        return Inventory(self._ms)

    def predict(self, architecture: Architecture) -> LatencyParts:
        """The expected latency of an architecture, by parts.

        Raises:
            InputError: naming every part outside what was measured (`Inventory.uses`); another `qkv_dim`.
        """
        if architecture.qkv_dim != self.qkv_dim:
            problem = f"qkv_dim: {architecture.qkv_dim}, measured at {self.qkv_dim}"
            raise InputError("parts of this architecture were not measured", [problem])
        ms = self._ms
        sums: defaultdict[tuple[Stack, int | None, Kind], float] = defaultdict(float)
        for use in self._inventory.uses(architecture):
            sums[use.term.stack, use.layer, _KINDS[use.term.part]] += use.weight * ms[use.term]
        parts = tuple(PartLatency(*place, value) for place, value in sums.items())
        encoder_ms = sum(part.ms for part in parts if part.stack == "encoder")
        decoder_ms = sum(part.ms for part in parts if part.stack == "decoder")
        return LatencyParts(encoder_ms + decoder_ms, encoder_ms, decoder_ms, parts)

    def problems_with(self, protocol: MeasuringProtocol, machine: Machine | None = None) -> tuple[str, ...]:
        """Warnings about using this profile for `protocol` on a machine (None: this one).

        A difference of processor or library version may change the figures; each is named.

        Raises:
            InputError: a difference that makes them meaningless (any field of the protocol); lists all.
        """
        machine = machine or this_machine(protocol.backend)
        measured, wanted = asdict(self.protocol), asdict(protocol)
        differences = [
            f"{name}: measured for {measured[name]}, wanted for {wanted[name]}"
            for name in measured
            if measured[name] != wanted[name]
        ]
        if differences:
            mend = "make a profile for these values with `automoe profile`"
            raise InputError("this device profile is for something else", [*differences, mend])
        warnings = []
        if machine.cpu != self.machine.cpu:
            warnings.append(
                f"the profile was measured on another processor: {self.machine.cpu}, not {machine.cpu}"
            )
        for library in self.machine.versions | machine.versions:
            theirs, ours = (one.versions.get(library, "missing") for one in (self.machine, machine))
            if ours != theirs:
                warnings.append(f"the profile was measured with {library} {theirs}, not {ours}")
        return tuple(warnings)

    def save(self, path: str | Path) -> None:
        """Write JSON that `load_profile` reads back to the same predictions; complete or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        write_text(path, self.model_dump_json(indent=1, exclude_none=True) + "\n")


def load_profile(path: str | Path) -> DeviceProfile:
    """Read what `DeviceProfile.save` wrote.

    Raises:
        InputError: the file is missing, damaged, or something else.
    """
    summary = "is damaged or no device profile; make it again with `automoe profile`"
    return read_model(path, DeviceProfile, summary)
