"""A tiny mixture-of-experts model, trained and searched with the real code, learns to reverse digits."""

import random

import pytest
import sacrebleu

from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.torch_engine import TorchEngine
from automoe.model.sharing import Supernet
from automoe.training.loop import train
from automoe.training.rules import only
from automoe.training.settings import TrainingSettings
from helpers.reversal import FIRST_DIGIT, VOCABULARY, ReversalStream, batch_of, digits

pytestmark = pytest.mark.slow  # whole processes, seconds each

MODEL = Architecture(
    encoder_width=64,
    decoder_width=64,
    qkv_dim=64,
    encoder=(EncoderLayer(4, (128, 64)),) * 2,
    decoder=(DecoderLayer(4, 4, (128, 96, 0)), DecoderLayer(4, 4, (128, 64), top_k=2)),
)
LONGEST = 8


def test_reversal_is_learnt_to_a_bleu_above_95(tmp_path):
    net = Supernet(MODEL, VOCABULARY, norm="pre", seed=1)
    settings = TrainingSettings(
        steps=700, peak_rate=3e-3, warmup_steps=70, average_checkpoints=3, checkpoint_every=350, device="cpu"
    )
    train(net, only(MODEL), ReversalStream(1, sentences=64, longest=LONGEST), settings, tmp_path)

    rng = random.Random("test")
    sources = [digits(rng, LONGEST) for _ in range(100)]
    found = TorchEngine(net.network.eval()).search(batch_of(sources).source_BS.numpy(), BeamSettings())

    def text(tokens):
        return " ".join(str(token - FIRST_DIGIT) for token in tokens)

    bleu = sacrebleu.corpus_bleu(
        [text(best[0].tokens) for best in found], [[text(source[::-1]) for source in sources]]
    )
    assert bleu.score > 95
