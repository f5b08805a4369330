"""Speed of training a mixture-of-experts model, with each way of the tokens to their experts in turns.

    python benchmarks/gpu_training.py
    python benchmarks/gpu_training.py --width 32 --layers 1 --experts 3 --ffn-size 48 --vocabulary 100 \
        --batch-tokens 60 --length 10 --steps 2 --rounds 2            # a try on a CPU, in seconds

Full sentences of random tokens, on a GPU if there is one: forward, backward, gradient clipping and Adam, and
the one look at loss and gradient norm that the training loop takes each step. `--layers` of each stack, all
with the same experts.

Prints the peak first: the best rate of a bfloat16 matrix product. Then for each way loss and gradient norm at
the same weights and dropout: they agree, but for roundings. Then the median over its rounds of the time of a
step, target tokens/s, and model FLOP/s, also as a share of that peak. Model FLOPs are
6 * active parameters * target tokens: forward and backward, the output layer counted as parameters, of the
experts only the top-k; not embedding look-ups, the products of attention, nor anything computed in vain.
Source and target are equally long. On a GPU each way's line is followed by how often, and where, the host
waits for the GPU in a step.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from automoe.cost.counting import count
from automoe.data.batching import Batch
from automoe.data.vocabulary import BOS_ID, EOS_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer, Expert
from automoe.model.dispatch import Dispatch, choose_dispatch, every_expert, grouped_product, sorted_blocks
from automoe.model.experts import MixtureOfExperts
from automoe.model.sharing import Supernet
from automoe.model.transformer import Transformer
from automoe.training.objective import objective, to_device
from automoe.training.optimizer import BlockAdam

HEAD_SIZE = 64
WAYS: dict[str, Dispatch | None] = {
    "sorted": sorted_blocks,
    "grouped": grouped_product,
    "every": every_expert,
    "chosen": None,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6, help="of the encoder, and of the decoder")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--ffn-size", type=int, default=2048)
    parser.add_argument("--identity-experts", type=int, default=0, help="of the experts")
    parser.add_argument("--top-k", type=int, default=1)
    parser.add_argument("--vocabulary", type=int, default=32768)
    parser.add_argument("--batch-tokens", type=int, default=16384, help="target tokens, rounded to sentences")
    parser.add_argument("--length", type=int, default=32, help="tokens of a sentence")
    parser.add_argument("--precision", choices=["bf16-mixed", "32-true"], default="bf16-mixed")
    parser.add_argument(
        "--ways", nargs="+", choices=list(WAYS), help="default: sorted, and one without waits"
    )
    parser.add_argument("--steps", type=int, default=10, help="in a round")
    parser.add_argument("--rounds", type=int, default=5, help="of each way, in turns")
    parser.add_argument("--peak-size", type=int, help="of the product; default: 8192, on a CPU 512")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    mixed = arguments.precision == "bf16-mixed"
    ways = arguments.ways or ["sorted", "grouped" if mixed else "every"]

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    peak = peak_flops_per_second(device, arguments.peak_size or (8192 if device.type == "cuda" else 512))
    print(f"{name}: {peak / 1e12:.3g} TFLOP/s of a bfloat16 matrix product")

    identity = arguments.identity_experts
    sizes = [arguments.ffn_size] * (arguments.experts - identity) + [0] * identity
    design = architecture(arguments.width, arguments.layers, sizes, arguments.top_k)
    supernet = Supernet(design, arguments.vocabulary, dropout=0.1)
    network = supernet.network.to(device).train()
    optimizer = BlockAdam(network, betas=(0.9, 0.98), eps=1e-9)
    batch = to_device(random_batch(arguments.batch_tokens, arguments.length, arguments.vocabulary), device)
    active = count(design).active_parameters + arguments.vocabulary * arguments.width
    step_flops = 6 * active * batch.target_tokens
    print(
        f"{active / 1e6:.1f} M active parameters, {batch.target_tokens} target tokens, {arguments.precision}"
    )

    for way in ways:
        take(network, WAYS[way])
        torch.manual_seed(1)
        loss, norm = differentiate(network, batch, mixed)
        print(f"{way}: loss {loss:.5f}, gradient norm {norm:.5f}", flush=True)
    step = partial(train_step, network, optimizer, batch, mixed)
    for way in ways:  # memory, Adam's moments and the libraries' choices
        take(network, WAYS[way])
        elapsed_seconds(device, step, 2)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way in ways:
            take(network, WAYS[way])
            seconds[way].append(elapsed_seconds(device, step, arguments.steps))
    for way in ways:
        middle, spread = statistics.median(seconds[way]), max(seconds[way]) - min(seconds[way])
        rate = step_flops / middle
        print(
            f"{way}: {middle * 1e3:.2f} ms a step (range {spread * 1e3:.2f}), "
            f"{batch.target_tokens / middle:.0f} target tokens/s, "
            f"{rate / 1e12:.4g} model TFLOP/s, {rate / peak:.1%} of the peak"
        )
        if device.type == "cuda":
            take(network, WAYS[way])
            waits = waits_of(step)
            print(f"{way}: {waits.total()} waits a step")
            for place, times in waits.most_common():
                print(f"    {times:4d}  {place}")


def architecture(width: int, layers: int, ffn_sizes: list[int], top_k: int) -> Architecture:
    """Every layer with these experts, heads of 64."""
    heads = max(1, width // HEAD_SIZE)
    experts = tuple(map(Expert, ffn_sizes))
    encoder = (EncoderLayer(heads, experts, top_k),) * layers
    decoder = (DecoderLayer(heads, heads, experts, top_k),) * layers
    return Architecture(width, width, width, encoder, decoder)


def random_batch(tokens: int, length: int, vocabulary_size: int) -> Batch:
    """Full sentences: nothing is padded."""
    sentences = max(1, tokens // length)
    generator = torch.Generator().manual_seed(1)
    source_BS, target_BT = torch.randint(4, vocabulary_size, (2, sentences, length), generator=generator)
    source_BS[:, -1] = target_BT[:, -1] = EOS_ID
    target_in_BT = torch.cat([torch.full((sentences, 1), BOS_ID), target_BT[:, :-1]], dim=1)
    return Batch(source_BS, target_in_BT, target_BT, sentences * length, sentences * length)


def take(network: Transformer, way: Dispatch | None) -> None:
    """Send the tokens of every mixture this way; None leaves the choice to the package."""
    for module in network.modules():
        if isinstance(module, MixtureOfExperts):
            module.choose_dispatch = choose_dispatch if way is None else lambda *_: way


def differentiate(network: Transformer, batch: Batch, mixed: bool) -> tuple[float, float]:
    """Fresh gradients, clipped; returns the loss a token and the norm before."""
    network.zero_grad(set_to_none=True)
    with torch.autocast(network.embedding.device.type, torch.bfloat16, enabled=mixed):
        result = objective(network, batch, balance_coefficient=0.01)
    (result.loss / result.tokens).backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), max_norm=1.0)
    loss, before = torch.stack([result.loss.detach() / result.tokens, norm]).tolist()
    return loss, before


def train_step(network: Transformer, optimizer: BlockAdam, batch: Batch, mixed: bool) -> None:
    """One update."""
    differentiate(network, batch, mixed)
    optimizer.step(network, rate=1e-4)


def elapsed_seconds(device: torch.device, work: Callable[[], object], times: int) -> float:
    """Seconds that `work` takes, mean of `times` in a row."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(times):
        work()
    synchronise(device)
    return (time.perf_counter() - start) / times


def peak_flops_per_second(device: torch.device, size: int) -> float:
    """FLOP/s of a bfloat16 product of two square matrices, the best of five rounds of five."""
    a, b = torch.randn(2, size, size, device=device).bfloat16()
    out = torch.empty_like(a)
    product = partial(torch.mm, a, b, out=out)
    product()
    return 2 * size**3 / min(elapsed_seconds(device, product, 5) for _ in range(5))


def waits_of(step: Callable[[], object]) -> Counter[str]:
    """How often each line of code makes the host wait for the GPU in one step, as PyTorch notices."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Counter(
        f"{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if "synchroniz" in str(warning.message)
    )


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
