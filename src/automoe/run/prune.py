"""A trained model without the experts that it hardly uses, measured beside the whole one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from automoe.cost.beside import Ratio, measure_beside
from automoe.cost.counting import FLOAT32_BYTES, count
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.batching import BatchStream, TokenisedCorpus, fixed_batches
from automoe.data.corpus import CorpusSource, Pair, load_pairs
from automoe.data.tokenizer import Tokenizer
from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.evaluation.expert_use import ExpertUse, expert_use, hardly_used
from automoe.evaluation.scores import Scores, evaluate_translations
from automoe.export.export_folder import write_folder
from automoe.export.model_card import FACTS
from automoe.inference.backends import make_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Engine
from automoe.inference.model_folder import (
    SHORTLIST,
    WEIGHTS,
    StoredModel,
    model_of,
    read_card,
    read_model,
    save_model,
)
from automoe.inference.translator import Translator
from automoe.model.pruning import without_experts
from automoe.model.sharing import Supernet
from automoe.model.transformer import Transformer
from automoe.progress import Reporter
from automoe.run.train import shown
from automoe.storage import digest, file_digest, write_json
from automoe.training.loop import train
from automoe.training.rules import only
from automoe.training.settings import TrainingSettings, decisive

REPORT = "pruning.json"
MAX_TOKENS = 128  # of a side, where a recipe says nothing else; longer pairs are not trained on
CHECKPOINT_EVERY = 100  # steps: of a short training, which a kill should not cost half of
TRANSLATED_TOGETHER = 256  # lines, between two signs of life


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRequest:
    """What is to be pruned, and how.

    Attributes:
        model: a model folder; it is left as it is. `output`: a new one.
        valid: the text that tells which experts are used, and that both models are scored on.
        min_importance: 0 to 1; an expert of less (`ExpertUse.importances`) is emptied, as is one without
            tokens.
        target_language: of BLEU; None is what the model's card says.
        train: what the pruned model is trained on for `steps`; None where there are none.
        peak_rate: the highest learning rate of these.
        protocol: of the latency; vocabulary and norm are the model's. Its engine also translates, with its
            beam.
        turns: measurements of each model's latency.
    """

    model: Path
    output: Path
    valid: CorpusSource
    protocol: MeasuringProtocol
    min_importance: float = 0.01
    target_language: str | None = None
    train: CorpusSource | None = None
    steps: int = 0
    peak_rate: float = 3e-4
    turns: int = 40


@dataclass(frozen=True, slots=True)
class PrunedLayer:
    """A mixture layer of the whole model on the validation text, and which of its experts were emptied.

    Attributes:
        ffn_sizes: of its experts, before. `emptied`: the indices of those whose weights were removed.
        shares, importances: as `ExpertUse`.
    """

    layer: str
    ffn_sizes: tuple[int, ...]
    shares: tuple[float, ...]
    importances: tuple[float, ...]
    emptied: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PrunedSide:
    """One of both models: BLEU on the validation text, the bytes of its float32 weights, ms a batch."""

    bleu: float
    weight_bytes: int
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Pruning:
    """What was pruned, and both models beside each other.

    Attributes:
        layers: every mixture layer. `architecture`: of the pruned model.
        bleu_signature: of both. `latency`: of the pruned model beside the whole one, by `protocol`.
    """

    layers: tuple[PrunedLayer, ...]
    architecture: Architecture
    before: PrunedSide
    after: PrunedSide
    bleu_signature: str
    latency: Ratio
    protocol: MeasuringProtocol


def prune(request: PruneRequest, reporter: Reporter) -> Pruning:
    """Empty the experts that are hardly used, train on if asked, compare, and write the new model folder.

    A training that is interrupted continues when the same is asked again; its folder lies beside the output
    until it has ended.

    Raises:
        InputError: the output exists; the model is dense, uses every expert, or would lose all of a layer;
            a text or a language is missing; a setting of the training is impossible.
    """
    if os.path.lexists(request.output):
        raise InputError(f"{request.output}: exists already", ["give the name of a new folder"])
    stored = read_model(request.model)
    if stored.architecture.is_dense:
        problem = "every layer has one expert, which every token needs"
        raise InputError(f"{request.model}: is a dense model", [problem])
    card = read_card(request.model)
    language = request.target_language or card.get("target_language")
    if not isinstance(language, str):
        raise InputError(f"{request.model}: does not say its target language", ["give --target-language"])
    settings = None if request.train is None else _settings(request)
    pairs = _read(request.valid, "validation text", reporter)
    training_pairs = None if request.train is None else _read(request.train, "training text", reporter)

    whole, tokenizer = model_of(stored), stored.tokenizer
    use = expert_use(whole, tokenizer, pairs)
    emptied = hardly_used(stored.architecture, use, request.min_importance)
    if not emptied:
        summary = f"{request.model}: every expert is used, nothing is to be removed"
        raise InputError(summary, _least_used(stored, use))
    for layer, experts in emptied.items():
        reporter.say(f"{layer}: emptied: {_spelled(stored, layer, experts)}")
    pruned = without_experts(whole, emptied)
    training = None
    if settings is not None and training_pairs is not None:
        training = _training_folder(request, settings, pruned.architecture, training_pairs)
        pruned = _trained_on(pruned, tokenizer, training_pairs, pairs, settings, training, reporter)
    layers = tuple(
        PrunedLayer(
            one.layer, _sizes(stored, one.layer), one.shares, one.importances, emptied.get(one.layer, ())
        )
        for one in use
    )
    pruning = _compared(request, whole, pruned, tokenizer, pairs, language, layers, reporter)
    facts = {name: card[name] for name in FACTS if name in card}
    _write(request, stored, pruned, facts, pruning)
    if training is not None:
        shutil.rmtree(training, ignore_errors=True)
    return pruning


def _compared(
    request: PruneRequest,
    whole: Transformer,
    pruned: Transformer,
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    language: str,
    layers: tuple[PrunedLayer, ...],
    reporter: Reporter,
) -> Pruning:
    """Both models beside each other: their own weights and routing, by the engine that is to serve."""
    norm = whole.options.norm
    protocol = replace(request.protocol, vocabulary_size=whole.vocabulary_size, norm=norm)
    backend, precision, threads = protocol.backend, protocol.precision, protocol.threads
    before, after = (make_engine(model, backend, precision, threads) for model in (whole, pruned))
    scores = [
        _scores(engine, tokenizer, pairs, language, protocol.beam_size, reporter.bar(f"translate, {name}"))
        for engine, name in ((before, "before"), (after, "after"))
    ]
    reporter.say(f"latency: both in turns, {request.turns} of each")
    ratio = measure_beside(before, after, protocol, request.turns)
    before_ms = ratio.reference_encoder_ms, ratio.reference_decoder_ms
    after_ms = ratio.encoder * before_ms[0], ratio.decoder * before_ms[1]
    return Pruning(
        layers=layers,
        architecture=pruned.architecture,
        before=PrunedSide(scores[0].bleu, _weight_bytes(whole, protocol), sum(before_ms)),
        after=PrunedSide(scores[1].bleu, _weight_bytes(pruned, protocol), sum(after_ms)),
        bleu_signature=scores[0].bleu_signature,
        latency=ratio,
        protocol=protocol,
    )


def _weight_bytes(model: Transformer, protocol: MeasuringProtocol) -> int:
    return FLOAT32_BYTES * count(model.architecture, protocol).total_parameters


def _settings(request: PruneRequest) -> TrainingSettings:
    """A short training from good weights: a low rate, and no balance, which would fill what is empty."""
    return TrainingSettings(
        steps=request.steps,
        peak_rate=request.peak_rate,
        warmup_steps=request.steps // 10,
        balance_coefficient=0.0,
        checkpoint_every=CHECKPOINT_EVERY,
    )


def _read(source: CorpusSource, name: str, reporter: Reporter) -> list[Pair]:
    pairs, report = load_pairs(source)
    reporter.say(f"{name}: {report}")
    return pairs


def _least_used(stored: StoredModel, use: Sequence[ExpertUse]) -> list[str]:
    """Of each layer the expert that would leave first."""
    least = {
        one.layer: min((i, e) for e, i in enumerate(one.importances) if _sizes(stored, one.layer)[e])
        for one in use
        if any(_sizes(stored, one.layer))
    }
    told = [
        f"{layer}: least important is {_spelled(stored, layer, [expert])}, with {importance:.1%}"
        for layer, (importance, expert) in least.items()
    ]
    return [*told, "choose a larger --min-importance, or keep the model as it is"]


def _sizes(stored: StoredModel, layer: str) -> tuple[int, ...]:
    (found,) = (one for one in stored.architecture.layers() if one.name == layer)
    return found.feed_forward.ffn_sizes


def _spelled(stored: StoredModel, layer: str, experts: Sequence[int]) -> str:
    """Experts by their numbers, from 1, and their sizes."""
    sizes = _sizes(stored, layer)
    return ", ".join(f"expert {expert + 1} of {len(sizes)} (size {sizes[expert]})" for expert in experts)


def _training_folder(
    request: PruneRequest, settings: TrainingSettings, architecture: Architecture, pairs: Sequence[Pair]
) -> Path:
    """Beside the output, named by all that decides the training: what another one left is not continued."""
    texts = [[pair.source, pair.target] for pair in pairs]
    decides = [
        file_digest(request.model / WEIGHTS),
        architecture.to_dict(),
        decisive(asdict(settings)),
        texts,
    ]
    return request.output.with_name(f"{request.output.name}.training-{digest(decides)[:12]}")


def _trained_on(
    pruned: Transformer,
    tokenizer: Tokenizer,
    training_pairs: Sequence[Pair],
    valid_pairs: Sequence[Pair],
    settings: TrainingSettings,
    folder: Path,
    reporter: Reporter,
) -> Transformer:
    """The model after `settings.steps` more steps from its weights, with its own dropout."""
    corpora = [TokenisedCorpus.build(pairs, tokenizer, MAX_TOKENS) for pairs in (training_pairs, valid_pairs)]
    architecture = pruned.architecture
    single = Supernet(architecture, pruned.vocabulary_size, norm=pruned.options.norm)
    single.network = pruned
    train(
        single,
        only(architecture),
        BatchStream(corpora[0], settings.batch_tokens, settings.seed),
        settings,
        folder,
        validation_batches=fixed_batches(corpora[1], 4 * settings.batch_tokens),
        validation_networks={"valid": architecture},
        report=shown(reporter, "train on"),
    )
    return single.network.cpu().eval()


def _scores(
    engine: Engine,
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    language: str,
    beam_size: int,
    bar: Callable[[int, int, str], None],
) -> Scores:
    translator = Translator(engine, tokenizer, BeamSettings(beam_size=beam_size))
    sources = [pair.source for pair in pairs]
    starts = range(0, len(sources), TRANSLATED_TOGETHER)
    texts: list[str] = []
    for done, start in enumerate(starts, start=1):
        texts += translator.translate(sources[start : start + TRANSLATED_TOGETHER])
        bar(done, len(starts), f"parts, {len(texts)} lines")
    return evaluate_translations(texts, [pair.target for pair in pairs], language)


def _write(
    request: PruneRequest,
    stored: StoredModel,
    pruned: Transformer,
    facts: Mapping[str, Any],
    pruning: Pruning,
) -> None:
    """The new folder: model, shortlist, and `pruning.json`. Its card has no figure of the whole model."""
    measured = {
        "experts emptied by pruning": sum(len(layer.emptied) for layer in pruning.layers),
        "BLEU on the text it was pruned by": pruning.after.bleu,
        "BLEU on it before": pruning.before.bleu,
        "BLEU signature": pruning.bleu_signature,
    }
    plain = asdict(pruning) | {
        "architecture": pruning.architecture.to_dict(),
        "protocol": pruning.protocol.plain(),
        "min_importance": request.min_importance,
        "steps": request.steps,
    }

    def write(folder: Path) -> None:
        save_model(folder, pruned, stored.tokenizer, {**facts, **measured})
        if stored.shortlist is not None:
            stored.shortlist.save(folder / SHORTLIST)
        write_json(folder / REPORT, plain)

    write_folder(request.output, ("format", "none of these"), write)
