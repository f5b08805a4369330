"""What training minimises: label-smoothed cross-entropy, a teacher's distribution beside it where there is
one, plus the experts' load-balance loss.

Shapes: B sentences, S source and T target tokens, X = B * T of them, N target tokens that are not padding,
n tokens of a chunk, D width, C >= D columns of the embedding, V vocabulary; a teacher has its own D and C.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from automoe.data.batching import Batch
from automoe.data.vocabulary import PAD_ID
from automoe.model.transformer import Transformer

# Most logits of one network held at once: 64 MiB of float32.
CHUNK_LOGITS = 1 << 24
# Without gradients, on a CPU: 8 MiB, which stay in its caches between product and softmax.
CACHED_LOGITS = 1 << 21


@dataclasses.dataclass(frozen=True)
class Objective:
    """The objective of one batch, as sums over its target tokens.

    Attributes:
        loss: scalar to call `backward` on (once) after dividing it by the tokens of the whole step:
            label-smoothed cross-entropy summed over tokens + tokens * balance_coefficient * balance.
        nll_sum: negative log-likelihood in nats, without smoothing, summed over tokens; detached.
        tokens: target tokens without padding.
        balance: Switch load-balance loss, mean over the mixture layers (0 without any); detached.
        hidden_ND: the input of the output layer, from which a `Teacher` is made; detached.
    """

    loss: Tensor
    nll_sum: Tensor
    tokens: int
    balance: Tensor
    hidden_ND: Tensor


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Whose distribution another model learns on one batch, besides the data; it gets no gradient.

    Attributes:
        hidden_ND: what it made of the batch (`Objective.hidden_ND`).
        weight_VC: its embedding; the leading D columns are its output layer.
        distillation: weight of its distribution; the data's has the rest of one.
    """

    hidden_ND: Tensor
    weight_VC: Tensor
    distillation: float


def objective(
    model: Transformer,
    batch: Batch,
    *,
    label_smoothing: float = 0.1,
    balance_coefficient: float = 0.0,
    teacher: Teacher | None = None,
) -> Objective:
    """The training objective of `model` on `batch` (on the model's device).

    With a teacher, the target distribution of a token is a mean, weighted by `teacher.distillation`, of the
    smoothed one of the data and the teacher's. The cross-entropy with that one has the gradient of the
    Kullback-Leibler divergence from it (in-place distillation, Yu & Huang, 2019).

    Dividing `loss` by the tokens of all micro-batches and ranks makes the sum of the gradients the
    gradient of one mean, however the tokens are spread over them.
    """
    output = model(batch.source_BS, batch.target_in_BT)
    hidden_ND, target_N = _without_padding(output.hidden_BTD, batch.target_out_BT)
    loss, nll_sum = linear_cross_entropy(hidden_ND, model.embedding, target_N, label_smoothing, teacher)
    tokens = target_N.shape[0]
    balance = loss.new_zeros(())
    if output.routing:
        balance = torch.stack([layer.load_balance_loss for layer in output.routing]).mean()
        loss = loss + (balance_coefficient * tokens) * balance
    return Objective(loss, nll_sum, tokens, balance.detach(), hidden_ND.detach())


def linear_cross_entropy(
    hidden_ND: Tensor,
    weight_VC: Tensor,
    target_N: Tensor,
    label_smoothing: float,
    teacher: Teacher | None = None,
) -> tuple[Tensor, Tensor]:
    """Output layer and label-smoothed cross-entropy together, without ever holding all the logits.

    Equals `F.cross_entropy(hidden_ND @ weight_VC[:, :D].T, target_N, label_smoothing=..., reduction="sum")`,
    with a teacher that of the target distributions which `objective` describes. Given whole, the weight
    gets one gradient instead of a slice's and its padded copy. The gradients are computed in the forward
    pass, chunk by chunk, so `backward` may be called once. Under autocast the products run in its type,
    softmax and accumulation in float32.

    Returns:
        (loss, nll): the summed loss, and the summed negative log-likelihood, which has no gradient.
    """
    return _APPLY(hidden_ND, weight_VC, target_N, label_smoothing, teacher)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VC: Tensor,
        target_N: Tensor,
        label_smoothing: float,
        teacher: Teacher | None,
    ) -> tuple[Tensor, Tensor]:
        device = hidden_ND.device.type
        product_type = hidden_ND.dtype
        if torch.is_autocast_enabled(device):
            product_type = torch.get_autocast_dtype(device)
        sum_type = torch.promote_types(product_type, torch.float32)
        tokens, width = hidden_ND.shape
        vocabulary = weight_VC.shape[0]
        data_share = 1.0 if teacher is None else 1 - teacher.distillation
        loss, nll_sum = hidden_ND.new_zeros(2, dtype=sum_type).unbind()
        grad_ND = torch.empty_like(hidden_ND)
        grad_VC = torch.zeros_like(weight_VC, dtype=sum_type)
        grad_VD = grad_VC[:, :width]
        with torch.autocast(device, enabled=False):
            product_weight_VD = weight_VC[:, :width].to(product_type)
            chunks = math.ceil(tokens * vocabulary / CHUNK_LOGITS)
            rows = max(1, math.ceil(tokens / chunks))
            # One buffer for every chunk: fresh memory costs more than what is computed in it.
            buffer_nV = hidden_ND.new_empty(rows, vocabulary, dtype=product_type)
            if teacher is not None:
                teacher_width = teacher.hidden_ND.shape[1]
                teacher_weight_VD = teacher.weight_VC[:, :teacher_width].to(product_type)
                teacher_buffer_nV = torch.empty_like(buffer_nV)
            for start in range(0, tokens, rows):
                hidden_nD = hidden_ND[start : start + rows].to(product_type)
                target_n1 = target_N[start : start + rows, None]
                logits_nV = torch.mm(hidden_nD, product_weight_VD.T, out=buffer_nV[: len(hidden_nD)])
                log_p_nV = logits_nV.to(sum_type)
                torch.log_softmax(log_p_nV, dim=1, out=log_p_nV)
                nll = -log_p_nV.gather(1, target_n1).sum()
                nll_sum += nll
                data_loss = (1 - label_smoothing) * nll - (label_smoothing / vocabulary) * log_p_nV.sum()
                loss += data_share * data_loss
                if teacher is not None:
                    teacher_nD = teacher.hidden_ND[start : start + rows].to(product_type)
                    out_nV = teacher_buffer_nV[: len(teacher_nD)]
                    teacher_p_nV = torch.mm(teacher_nD, teacher_weight_VD.T, out=out_nV).to(sum_type)
                    torch.softmax(teacher_p_nV, dim=1, out=teacher_p_nV)
                    loss -= teacher.distillation * torch.dot(teacher_p_nV.flatten(), log_p_nV.flatten())
                # d loss / d logits = softmax - target distribution, in the place of the log-probabilities.
                grad_nV = log_p_nV.exp_().sub_(data_share * (label_smoothing / vocabulary))
                one_hot = data_share * (label_smoothing - 1)
                grad_nV.scatter_add_(1, target_n1, grad_nV.new_full(target_n1.shape, one_hot))
                if teacher is not None:
                    grad_nV.sub_(teacher_p_nV, alpha=teacher.distillation)
                grad_nV = grad_nV.to(product_type)
                grad_ND[start : start + rows] = grad_nV @ product_weight_VD
                if product_type == sum_type:
                    grad_VD.addmm_(grad_nV.T, hidden_nD)
                else:
                    grad_VD += grad_nV.T @ hidden_nD
        ctx.gradients = grad_ND, grad_VC.to(weight_VC.dtype)
        ctx.mark_non_differentiable(nll_sum)
        return loss, nll_sum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        # In place and handed over: a copy would be a second gradient of the whole embedding.
        grad_ND, grad_VC = ctx.gradients
        del ctx.gradients
        return grad_ND.mul_(grad_loss), grad_VC.mul_(grad_loss), None, None, None


_APPLY = cast(Callable[..., tuple[Tensor, Tensor]], _LinearCrossEntropy.apply)


def validation_nll(model: Transformer, batches: Iterable[Batch]) -> tuple[float, int]:
    """Negative log-likelihood in nats summed over target tokens, and their number (`validation_loss`)."""
    was_training = model.training
    model.eval()
    nll_sum, tokens = 0.0, 0
    try:
        with torch.no_grad():
            for batch in batches:
                batch = to_device(batch, model.embedding.device)
                output = model(batch.source_BS, batch.target_in_BT)
                hidden_ND, target_N = _without_padding(output.hidden_BTD, batch.target_out_BT)
                most = CHUNK_LOGITS if hidden_ND.is_cuda else CACHED_LOGITS
                rows = max(1, most // model.vocabulary_size)
                for hidden_nD, target_n in zip(hidden_ND.split(rows), target_N.split(rows), strict=True):
                    logits_nV = model.logits(hidden_nD).float()
                    nll_sum += float(F.cross_entropy(logits_nV, target_n, reduction="sum"))
                tokens += target_N.shape[0]
    finally:
        model.train(was_training)
    return nll_sum, tokens


def validation_loss(model: Transformer, batches: Iterable[Batch]) -> float:
    """Mean negative log-likelihood a target token, in nats; no smoothing, no dropout, no gradient.

    The model's training mode is restored. Raises ZeroDivisionError without a single token.
    """
    nll_sum, tokens = validation_nll(model, batches)
    return nll_sum / tokens


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch with its tensors on `device`."""
    tensors: dict[str, Any] = {
        field.name: value.to(device, non_blocking=True)
        for field in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor)
    }
    return dataclasses.replace(batch, **tensors)


def _without_padding(hidden_BTD: Tensor, target_BT: Tensor) -> tuple[Tensor, Tensor]:
    hidden_XD, target_X = hidden_BTD.flatten(0, 1), target_BT.flatten()
    kept_N = (target_X != PAD_ID).nonzero().flatten()
    if kept_N.shape == target_X.shape:
        return hidden_XD, target_X
    return hidden_XD.index_select(0, kept_N), target_X[kept_N]
