"""Weight sharing: every parameter of a sub-network is the leading block of the supernet's parameter.

The leading block of a tensor is its front rows and front columns, as many as the smaller parameter of
the same name has. This one rule shares layers, heads, widths, experts and routers alike. Mixers of unlike
kinds have parameters of unlike names, so a supernet owns those of every kind that its members may have.
(`mixture_of_supernets` has the other way to share: weights that are generated for each architecture.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from automoe.design.architecture import Architecture, Mixer, Norm, with_mixer
from automoe.design.model_options import ModelOptions
from automoe.model.transformer import Transformer


def leading_block(large: Tensor, shape: torch.Size) -> Tensor:
    """The view of `large` whose every dimension is cut to `shape`.

    Raises:
        ValueError: `shape` does not fit into `large`.
    """
    if len(shape) != large.dim() or any(s > n for s, n in zip(shape, large.shape, strict=True)):
        raise ValueError(f"a block of shape {tuple(shape)} does not fit into {tuple(large.shape)}")
    return large[tuple(slice(size) for size in shape)]


def as_module(parameters: Mapping[str, nn.Parameter]) -> nn.Module:
    """A module that has these parameters under these dotted names, and does nothing."""
    root = nn.Module()
    for name, parameter in parameters.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(last, parameter)
    return root


class Supernet:
    """The largest network of a space; it owns every weight, its sub-networks are views.

    A single model is a supernet with one member.

    Args:
        largest: an architecture that contains every other one as leading blocks, whatever their mixers.
        mixers: those of the members; what the largest itself has goes without saying.
        vocabulary_size: V. `norm`: as in `ModelOptions`. `seed`: of the first weights.
        dropout: at the width of `dropout_reference` (default: `largest`); a narrower stack gets
            proportionally less (HAT, Wang et al., 2020).

    Attributes:
        network: `largest` with the weights of all mixers.
        other_mixers: those whose weights the network holds and does not use itself.
        versions: of each matrix, from which a member's is made.
    """

    versions = 1

    def __init__(
        self,
        largest: Architecture,
        vocabulary_size: int,
        *,
        norm: Norm = "post",
        dropout: float = 0.0,
        dropout_reference: Architecture | None = None,
        seed: int = 0,
        mixers: Sequence[Mixer] = (),
    ) -> None:
        self._norm: Norm = norm
        self._dropout = dropout
        self._reference = dropout_reference or largest
        self.network = Transformer(largest, vocabulary_size, self._options(largest))
        self.other_mixers = sorted(
            mixer for mixer in set(mixers) if any(layer.mixer != mixer for layer in largest.decoder)
        )
        for mixer in self.other_mixers:
            self.network.hold(with_mixer(largest, mixer))
        self.network.initialise(seed)

    def subnetwork(self, architecture: Architecture) -> Transformer:
        """A Transformer whose parameters ARE the leading blocks: same storage, nothing copied.

        Its gradients are its own, as large as its parameters (`gradients`), and go to the supernet's weights
        by `automoe.training.optimizer.BlockAdam`; an expert that got no token keeps `grad` None.

        Raises:
            ValueError: the architecture does not fit into the supernet.
        """
        if architecture == self.network.architecture and not self.other_mixers:
            return self.network
        return self._member(architecture)

    def gradients(self, member: Transformer) -> dict[str, Tensor | None]:
        """Use up what `backward` left in a member: the gradients of the supernet's own parameters, by name.

        They are leading blocks of these, None for an expert that got no token. The names depend on the
        member's architecture alone.
        """
        gradients: dict[str, Tensor | None] = {}
        for name, parameter in member.named_parameters():
            gradients[name], parameter.grad = parameter.grad, None
        return gradients

    def extract(self, architecture: Architecture) -> Transformer:
        """A Transformer of its own with copies of the leading blocks.

        Raises:
            ValueError: the architecture does not fit into the supernet.
        """
        small = self._empty(architecture)
        small.load_state_dict(
            {name: block.clone() for name, block in self._blocks(small).items()}, assign=True
        )
        return small.train(self.network.training)

    def _member(self, architecture: Architecture) -> Transformer:
        small = self._empty(architecture)
        small.load_state_dict(self._blocks(small), assign=True)
        return small.train(self.network.training)

    def _options(self, architecture: Architecture) -> ModelOptions:
        return ModelOptions(
            self._norm,
            self._dropout * architecture.encoder_width / self._reference.encoder_width,
            self._dropout * architecture.decoder_width / self._reference.decoder_width,
        )

    def _empty(self, architecture: Architecture) -> Transformer:
        with torch.device("meta"):
            return Transformer(architecture, self.network.vocabulary_size, self._options(architecture))

    def _blocks(self, small: Transformer) -> dict[str, Tensor]:
        large = dict(self.network.named_parameters())
        missing = [name for name, _ in small.named_parameters() if name not in large]
        if missing:
            raise ValueError(f"the supernet has no {', '.join(missing[:5])}")
        return {
            name: leading_block(large[name].detach(), parameter.shape)
            for name, parameter in small.named_parameters()
        }
