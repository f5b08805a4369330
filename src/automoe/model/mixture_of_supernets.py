"""Weights generated for each architecture: a mixture of supernets (Jawahar et al., 2024, arXiv 2306.04845).

Members of an ordinary supernet share their weights as they are. Here they share how weights are made: every
matrix is there in several versions, and an architecture gets a mean of these, whose gates a small network
computes from the architecture, for each output of a matrix apart (the paper's neuron-wise variant).

Shapes: F features of an architecture, H hidden units, M versions, G outputs of all generated matrices
together, R of them those of one matrix.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automoe.design.architecture import Architecture, Mixer, Norm
from automoe.model.sharing import Supernet, as_module, leading_block
from automoe.model.transformer import Transformer

HIDDEN_UNITS = 128
"""Of the network that computes the gates; the paper's."""


class MixtureOfSupernets(Supernet):
    """A supernet whose members' matrices are means of `versions` of its own.

    The matrix of a member is `sum_m diag(gates_m) leading_block(version_m)`, where the gates of each output
    are a softmax over the versions. Generated are the linear layers' weights and the embedding, whose outputs
    are its columns; biases and norms are shared as they are. With one version nothing would be generated:
    that is a `Supernet`.

    Args:
        versions: M, at least two (the paper's); they differ in their first weights. All else: as `Supernet`.

    Raises:
        ValueError: fewer than two versions.

    Attributes:
        versions: M.
        network: as a `Supernet`'s. It has the first version of each matrix under the matrix's own name; the
            others, `versions.0.NAME` and so on, and the network of the gates, `gate_router` and
            `unit_router`, are modules of it, so whoever trains or stores its parameters does so with these.
    """

    def __init__(
        self,
        largest: Architecture,
        vocabulary_size: int,
        *,
        versions: int = 2,
        norm: Norm = "post",
        dropout: float = 0.0,
        dropout_reference: Architecture | None = None,
        seed: int = 0,
        mixers: Sequence[Mixer] = (),
    ) -> None:
        if versions < 2:
            raise ValueError(f"expected at least 2 versions, got {versions}")
        super().__init__(
            largest,
            vocabulary_size,
            norm=norm,
            dropout=dropout,
            dropout_reference=dropout_reference,
            seed=seed,
            mixers=mixers,
        )
        first = dict(self.network.named_parameters())
        self._versions = {name: [(name, matrix)] for name, matrix in first.items() if matrix.dim() == 2}
        self._outputs = {name: first[name].shape[_output_dim(name)] for name in self._versions}
        others = nn.ModuleList()
        for index in range(versions - 1):
            other_seed = random.Random(f"version {index} of {seed}").getrandbits(63)
            drawn = Supernet(largest, vocabulary_size, norm=norm, seed=other_seed, mixers=mixers)
            other = dict(drawn.network.named_parameters())
            others.append(as_module({name: other[name] for name in self._versions}))
            for name, of_name in self._versions.items():
                of_name.append((f"versions.{index}.{name}", other[name]))
        self.versions = versions
        self.unit_router = nn.Linear(len(architecture_features(largest, largest)), HIDDEN_UNITS)
        self.gate_router = nn.Linear(HIDDEN_UNITS, versions * sum(self._outputs.values()))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for linear in (self.unit_router, self.gate_router):
                bound = linear.in_features**-0.5
                linear.weight.uniform_(-bound, bound, generator=generator)
                nn.init.zeros_(linear.bias)
            # The mean of M independent draws is narrower than each by the root of M.
            for of_name in self._versions.values():
                for _, matrix in of_name:
                    matrix.mul_(versions**0.5)
        self.network.add_module("versions", others)
        # Both names end so that Muon leaves them to Adam, as it does all routers.
        self.network.add_module("unit_router", self.unit_router)
        self.network.add_module("gate_router", self.gate_router)

    def subnetwork(self, architecture: Architecture) -> Transformer:
        """A Transformer whose matrices are generated now, and whose biases and norms are the supernet's own.

        After an update it is to be made anew.

        Raises:
            ValueError: the architecture does not fit into the supernet.
        """
        return self._member(architecture)

    def gradients(self, member: Transformer) -> dict[str, Tensor | None]:
        """The gradients of all versions and of the network of the gates, by the chain rule from a member's.

        The weights must be those from which the member was made. Unlike all others, the gradients of the
        gates' network are whole, zero where they are of outputs that the member lacks.

        Raises:
            RuntimeError: the member has no gradient at all.
        """
        gradients: dict[str, Tensor | None] = {}
        gates = self._gates(member.architecture)
        used: list[Tensor] = []
        gradients_of_used: list[Tensor] = []
        for name, gradient in super().gradients(member).items():
            if name not in self._versions:
                gradients[name] = gradient
                continue
            if gradient is None:
                gradients |= {version: None for version, _ in self._versions[name]}
                continue
            output_dim = _output_dim(name)
            gates_RM = gates[name][: gradient.shape[output_dim]]
            gradients_M: list[Tensor] = []
            for index, (version, matrix) in enumerate(self._versions[name]):
                gate = gates_RM[:, index].detach().unsqueeze(1 - output_dim)
                gradients[version] = gate * gradient
                block = leading_block(matrix.detach(), gradient.shape)
                gradients_M.append((block * gradient).sum(1 - output_dim))
            used.append(gates_RM)
            gradients_of_used.append(torch.stack(gradients_M, 1))
        routers = {
            name: parameter
            for name, parameter in self.network.named_parameters()
            if name.startswith(("unit_router.", "gate_router."))
        }
        found = torch.autograd.grad(used, list(routers.values()), gradients_of_used)
        return gradients | dict(zip(routers, found, strict=True))

    @torch.no_grad()
    def _blocks(self, small: Transformer) -> dict[str, Tensor]:
        gates = self._gates(small.architecture)
        blocks = super()._blocks(small)
        for name in self._versions.keys() & blocks.keys():
            shape, output_dim = blocks[name].shape, _output_dim(name)
            gates_RM = gates[name][: shape[output_dim]]
            blocks[name] = torch.zeros(shape, device=gates_RM.device)
            for gate_R, (_, matrix) in zip(gates_RM.unbind(1), self._versions[name], strict=True):
                blocks[name] += gate_R.unsqueeze(1 - output_dim) * leading_block(matrix, shape)
        return blocks

    def _gates(self, architecture: Architecture) -> dict[str, Tensor]:
        """(R, M) of each generated matrix of the supernet, with a graph to the network that computes them."""
        features = architecture_features(architecture, self.network.architecture)
        features_F = self.unit_router.weight.new_tensor(features)
        hidden_H = F.relu(self.unit_router(features_F))
        gates_GM = self.gate_router(hidden_H).view(sum(self._outputs.values()), -1).softmax(-1)
        return dict(zip(self._outputs, gates_GM.split([*self._outputs.values()]), strict=True))


def _output_dim(name: str) -> int:
    """Which dimension of a matrix is that of its outputs: a lookup's are the columns."""
    return 1 if name == "embedding" else 0


def architecture_features(architecture: Architecture, largest: Architecture) -> list[float]:
    """What an architecture is, relative to the largest one: as many numbers for each that fits into it.

    Every number of `Architecture.to_dict` as a share of the largest's (0 where there is no such layer or
    expert), lengths of lists likewise, and which mixer each decoder layer has.
    """
    return [*_features(_with_mixers(architecture), _with_mixers(largest))]


def _with_mixers(architecture: Architecture) -> dict[str, Any]:
    plain = architecture.to_dict()
    for layer, values in zip(architecture.decoder, plain["decoder"], strict=True):
        values["mixer"] = {mixer: int(mixer == layer.mixer) for mixer in get_args(Mixer)}
    return plain


def _features(plain: Any, largest: Any) -> Iterator[float]:
    match largest:
        case Mapping():
            for name, value in largest.items():
                yield from _features(plain[name] if plain else None, value)
        case list():
            items = plain or []
            yield len(items) / len(largest)
            for index, value in enumerate(largest):
                yield from _features(items[index] if index < len(items) else None, value)
        case _:
            yield float(plain or 0) / (largest or 1)
