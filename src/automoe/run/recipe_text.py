"""The commented recipe of a plan, and the files that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from automoe.cost.protocol import MeasuringProtocol
from automoe.data.corpus import CorpusSource
from automoe.design.space import DecoderSpace, EncoderSpace
from automoe.run.plan import FINALS_PRICE, SAFETY, RunPlan, Wish
from automoe.run.scales import Scale

RECIPE, SPACE, BASELINE = "recipe.yaml", "space.yaml", "dense.yaml"
FINAL_RATE_RATIO = 0.02


@dataclass(frozen=True)
class ProjectData:
    """What a recipe says of its data.

    Attributes:
        train, valid, test: with paths relative to the project's folder.
        source_language, target_language: codes.
    """

    train: CorpusSource
    valid: CorpusSource
    test: CorpusSource
    source_language: str
    target_language: str


def recipe_text(name: str, data: ProjectData, plan: RunPlan, wish: Wish, protocol: MeasuringProtocol) -> str:
    """The recipe as YAML.

    Args:
        name: of the run. `protocol`: of latencies; vocabulary and norm are the recipe's own.
    """
    bounds = "\n".join(f"    {cost}: {_plain(bound)}" for cost, bound in wish.bounds.items())
    hours = "\n".join(f"#   {SAFETY * seconds / 60:7.1f}  {part}" for part, seconds in plan.seconds.items())
    compared = f"{{name: dense, architecture: {BASELINE}, minutes_of: automoe}}"
    if wish.with_baseline:
        baseline = f"  # designed by hand, trained for as many minutes as the winner\n  - {compared}"
    else:
        baseline = (
            "  # without its # the next line compares with a deep Transformer, trained for as many minutes\n"
            f"  # - {compared}"
        )
    training = _training(plan, wish)
    algorithm = plan.algorithm
    return f"""\
# Made by `automoe init` for {plan.facts.train_pairs:,} sentence pairs, {wish.hours:g} hours and this machine.
# Run it with `automoe run` and the name of this folder; change any value here, or with key=value.
#
# Expected minutes on this machine, {SAFETY - 1:.0%} for safety included:
{hours}
#   {60 * plan.hours:7.1f}  in all
# A training sees its text {plan.epochs:.2g} times.

name: {_plain(name)}
space: {SPACE}           # which architectures may be built; paths are relative to this file

data:
  train: {_flow(data.train)}
  valid: {_flow(data.valid)}
  test: {_flow(data.test)}
  source_language: {_plain(data.source_language)}
  target_language: {_plain(data.target_language)}
  vocabulary:                 # joint subword vocabulary: small models spend their time on the output layer
    size: {plan.facts.vocabulary_size}
    kind: unigram
  max_tokens: {plan.facts.max_tokens}             # longer pairs are left out of training

model:                        # what is not searched
  norm: pre                   # learns faster than post-norm in short trainings
  dropout: {plan.dropout}

supernet:                     # all its members share weights: it ranks the candidates
  rule: random                # which members a step trains
  steps: {plan.supernet_steps}
{training}
  average_checkpoints: 1

search:
  rank_by: loss               # validation loss with the supernet's weights
  sentences: {plan.sentences}              # of the validation set
  constraints:                # the budget; a share is of what the dense Transformer in {BASELINE} costs
{bounds}
  algorithm:                  # the paper's Algorithm 1, smaller
    iterations: {algorithm.iterations}
    population: {algorithm.population}
    parents: {algorithm.parents}
    mutations: {algorithm.mutations}
    crossovers: {algorithm.crossovers}
    mutation_probability: {algorithm.mutation_probability}

finals:                       # the best candidates race by real training, the winner's goes on
  candidates: {plan.candidates}
  dense: {plan.dense_candidates}                    # of them, at least, without mixtures
  per_shape: 1                # at most so many dense ones, and mixtures, are alike in widths and depths
  min_distance: 2             # in how many genes any two differ
  price: {FINALS_PRICE}                  # what the losers' steps cost, in trainings

training:                     # every system, from scratch; longer is better while the loss falls
  steps: {plan.steps}
{training}
  average_checkpoints: 3      # their mean is the result, or the last weights where these are better

systems:                      # what is trained and compared
  - {{name: automoe, search: evolution}}
{baseline}

seeds: [1]                    # everything random is repeated with each

translation:
  beam_size: 5
  length_penalty: 0.6

latency:                      # of one sentence, in what will serve the model
  backend: {protocol.backend}
  precision: {protocol.precision}
  source: profile             # of this machine, made by the run; `profile: FILE` names one made elsewhere
  source_length: {protocol.source_length}           # tokens
  target_length: {protocol.target_length}
  beam_size: {protocol.beam_size}
  threads: {protocol.threads}
  runs: {plan.latency_runs}
"""


def space_text(scale: Scale) -> str:
    """A scale's search space as YAML."""
    space = scale.space
    return f"""\
# {scale.remark[0].upper()}{scale.remark[1:]}.

qkv_dim: {space.qkv_dim}                  # what all heads of one attention share
experts: {space.experts}           # every expert of a layer has a size of its own
placement: {space.placement}               # each layer draws its number of experts

encoder:
{_stack(space.encoder)}
decoder:
{_stack(space.decoder)}"""


_REMARKS = {
    "widths": "of the model",
    "layer_counts": "numbers of layers",
    "self_attention_heads": "of a layer",
    "ffn_sizes": "of each expert",
    "max_experts": "a layer has 1 to so many",
    "top_k": "experts a token is sent to",
    "cross_attention_heads": "of a layer's attention over the encoder",
    "encoder_layers_attended": "how many of the last encoder layers that attention sees",
}


def _stack(stack: EncoderSpace | DecoderSpace) -> str:
    lines = [
        (f"  {field}: {list(value) if isinstance(value, tuple) else value}", _REMARKS[field])
        for field, value in asdict(stack).items()
        if field != "mixers"  # self-attention, as where nothing is said
    ]
    return "".join(f"{line:50} # {remark}\n" for line, remark in lines)


def _training(plan: RunPlan, wish: Wish) -> str:
    """The keys that supernet and training have in common."""
    return f"""\
  optimizer: {plan.scale.optimizer}
  peak_rate: {plan.scale.peak_rate}
  warmup_steps: {plan.warmup_steps}
  schedule: constant          # warm-up, constant, and over the last 30 % of the steps down to nearly nothing
  final_rate_ratio: {FINAL_RATE_RATIO}
  label_smoothing: 0.1
  balance_coefficient: 0.01   # keeps the routers from sending every token to one expert
  batch_tokens: {plan.batch_tokens}           # target tokens a step
  precision: {wish.precision:17} # bf16-mixed where the device multiplies bfloat16 fast, else 32-true
  checkpoint_every: {plan.validate_every}
  validate_every: {plan.validate_every}"""


def _flow(source: CorpusSource) -> str:
    """A corpus in one line, without what is not given."""
    given: Mapping[str, object] = {key: value for key, value in asdict(source).items() if value is not None}
    return "{" + ", ".join(f"{key}: {_plain(value)}" for key, value in given.items()) + "}"


def _plain(value: object) -> str:
    """A number, or a text in YAML's double quotes, between which nothing is taken for anything else."""
    if not isinstance(value, str):
        return str(value)
    escaped = (f"\\{c}" if c in '"\\' else c if c.isprintable() else f"\\U{ord(c):08x}" for c in value)
    return f'"{"".join(escaped)}"'
