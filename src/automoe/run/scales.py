"""How large models may be: search spaces from the smallest to the largest, and when each is worth it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from automoe.design.architecture import Architecture, dense
from automoe.design.space import DecoderSpace, EncoderSpace, SearchSpace
from automoe.training.settings import OptimizerName

StackT = TypeVar("StackT", EncoderSpace, DecoderSpace)
# Of a Transformer designed by hand, whatever the space: Transformer-Base's depth.
BASELINE_LAYERS = 6
LADDER_RUNGS = 5


@dataclass(frozen=True)
class Scale:
    """A search space and how its members are trained.

    Attributes:
        name: for messages. `remark`: what it is for, in the space's file.
        space: what is searched.
        least_tokens: target tokens of one training from which on its larger members learn more than those
            of the scale before.
        vocabulary_size: of the joint vocabulary, where the text has so many subwords.
        optimizer, peak_rate: of all trainings.
    """

    name: str
    remark: str
    space: SearchSpace
    least_tokens: int
    vocabulary_size: int
    optimizer: OptimizerName
    peak_rate: float

    @property
    def baseline(self) -> Architecture:
        """The dense Transformer designed by hand that shares of a budget refer to."""
        encoder = self.space.encoder
        width, heads = max(encoder.widths), max(encoder.self_attention_heads)
        return dense(width, 4 * width, heads, BASELINE_LAYERS, BASELINE_LAYERS)

    def ladder(self) -> Iterator[Architecture]:
        """Dense members from the largest to the smallest."""
        for rung in range(LADDER_RUNGS, -1, -1):
            share = rung / LADDER_RUNGS
            part = replace(
                self.space,
                encoder=_lowest(self.space.encoder, share),
                decoder=_lowest(self.space.decoder, share),
            )
            yield part.largest_dense()


def _lowest(stack: StackT, share: float) -> StackT:
    """A stack with the lowest of the choices that make it larger; of each at least one."""

    def some(choices: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(choices)[: max(1, round(share * len(choices)))])

    return replace(
        stack,
        widths=some(stack.widths),
        layer_counts=some(stack.layer_counts),
        ffn_sizes=some(stack.ffn_sizes),
    )


def _space(
    widths: tuple[int, ...],
    encoder_layers: tuple[int, ...],
    decoder_layers: tuple[int, ...],
    heads: int,
    ffn_sizes: tuple[int, ...],
    max_experts: int,
) -> SearchSpace:
    return SearchSpace(
        qkv_dim=max(widths),
        experts="fractional",
        encoder=EncoderSpace(
            widths=widths,
            layer_counts=encoder_layers,
            self_attention_heads=(heads,),
            ffn_sizes=ffn_sizes,
            max_experts=max_experts,
        ),
        decoder=DecoderSpace(
            widths=widths,
            layer_counts=decoder_layers,
            self_attention_heads=(heads,),
            cross_attention_heads=(heads,),
            ffn_sizes=ffn_sizes,
            max_experts=max_experts,
        ),
    )


SCALES = (
    Scale(
        "tiny",
        "for a few hundred sentence pairs, or a run of a few minutes",
        _space((48, 64, 96), (1, 2), (1,), 4, (32, 64, 128, 256), 2),
        least_tokens=0,
        vocabulary_size=4000,
        optimizer="muon",
        peak_rate=4e-3,
    ),
    Scale(
        "small",
        "for tens of thousands of sentence pairs, and trainings of minutes",
        _space((96, 128, 160, 192), (1, 2, 3), (1, 2), 4, (64, 128, 256, 512, 768), 4),
        least_tokens=500_000,
        vocabulary_size=4000,
        optimizer="muon",
        peak_rate=4e-3,
    ),
    Scale(
        "medium",
        "as the small one, with deeper members, for trainings of ten minutes and more",
        _space((96, 128, 160, 192), (1, 2, 3, 4, 6), (1, 2, 3, 6), 4, (64, 128, 256, 512, 768), 4),
        least_tokens=3_000_000,
        vocabulary_size=4000,
        optimizer="muon",
        peak_rate=4e-3,
    ),
    Scale(
        "large",
        "for a hundred thousand sentence pairs and more, and a GPU or many hours",
        _space((256, 384, 512), (2, 3, 4, 6), (1, 2, 3, 6), 8, (256, 512, 1024, 2048), 6),
        least_tokens=20_000_000,
        vocabulary_size=8000,
        optimizer="adam",
        peak_rate=1.4e-3,
    ),
)
"""From the smallest to the largest. `small` and `medium` are the spaces of the shipped recipes for two cores,
`large` that of the recipes for a GPU."""
