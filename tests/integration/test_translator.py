"""Streams of lines through a model, and the model folder on disk."""

import dataclasses
import itertools
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tokenizers import models, pre_tokenizers

from automoe.data.tokenizer import Tokenizer
from automoe.data.vocabulary import EOS_ID, SPECIAL_TOKENS
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.design.model_options import ModelOptions
from automoe.errors import InputError
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Hypothesis
from automoe.inference.model_folder import load_model, save_model
from automoe.inference.torch_engine import TorchEngine
from automoe.inference.translator import WINDOW_LINES, Translation, Translator, batches_by_length
from automoe.model.sharing import Supernet
from automoe.model.transformer import Transformer

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "."]
ARCHITECTURE = Architecture(
    encoder_width=16,
    decoder_width=8,
    qkv_dim=16,
    encoder=(EncoderLayer(2, (16, 8)), EncoderLayer(4, (8,))),
    decoder=(DecoderLayer(2, 2, (8, 0, 16), encoder_layers_attended=2),),
)
SETTINGS = BeamSettings(beam_size=2, max_length_ratio=1, max_length_extra=3)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate([*SPECIAL_TOKENS, *WORDS])}
    words = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(list(SPECIAL_TOKENS))
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    words.save(str(path))
    return Tokenizer.load(path)


@pytest.fixture
def model(tokenizer: Tokenizer) -> Transformer:
    model = Transformer(ARCHITECTURE, tokenizer.vocabulary_size, ModelOptions("pre", 0.2, 0.1))
    model.initialise(5)
    return model.eval()


def sentences(count: int) -> list[str]:
    return [
        " ".join(itertools.islice(itertools.cycle(WORDS), i % 5, i % 5 + 1 + i % 7)) for i in range(count)
    ]


def test_each_line_gets_the_translation_it_gets_alone(model: Transformer, tokenizer: Tokenizer) -> None:
    lines = sentences(40)
    translator = Translator(TorchEngine(model.double().eval()), tokenizer, SETTINGS)
    together = list(translator.translate(lines, batch_tokens=25))
    assert len(set(together)) > 5  # a model that says always the same would prove nothing
    for line, translation in zip(lines, together, strict=True):
        source_BS = np.array([[*tokenizer.encode([line])[0], EOS_ID]])
        ((hypothesis,),) = TorchEngine(model.eval()).search(source_BS, SETTINGS)
        assert translation == tokenizer.decode([list(hypothesis.tokens)])[0]


def test_as_many_lines_out_as_in_whatever_they_hold(model: Transformer, tokenizer: Tokenizer) -> None:
    lines = ["one two\n", "", "\n", "   \t ", "ünknöwn 漢字 \x00\x07", "three\r\n", "🙂" * 50, "seven"]
    translator = Translator(TorchEngine(model.eval()), tokenizer, SETTINGS)
    found = list(translator.translate(lines))
    assert len(found) == len(lines)
    assert [not text for text in found[1:4]] == [True] * 3
    assert not any("\n" in text or "\r" in text for text in found)
    assert found[5] == next(translator.translate(["three"]))


class OddSpelling:
    """A tokenizer whose text has every character that some program takes for a line break."""

    def decode(self, tokens: list[list[int]]) -> list[str]:
        return ["a\r\nb\nc\rd\x0be\x0cf\x1cg\x1dh\x1ei\x85j\u2028k\u2029l" for _ in tokens]


def test_a_translation_is_one_line_for_every_program(model: Transformer) -> None:
    translator = Translator(TorchEngine(model), OddSpelling(), SETTINGS)
    ((text, _),) = translator.spell([Hypothesis((4, 5), -1.0, -2.0)])
    assert text.split(" ") == list("abcdefghijkl")
    assert len(text.splitlines()) == 1


def test_a_stream_is_read_a_window_at_a_time(model: Transformer, tokenizer: Tokenizer) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        for read in itertools.count(1):  # noqa: B007
            yield "one"

    found = Translator(TorchEngine(model.eval()), tokenizer, SETTINGS).translate(endless(), batch_tokens=4000)
    first = next(found)
    assert read == WINDOW_LINES
    assert [first] * WINDOW_LINES == list(itertools.islice(found, WINDOW_LINES))
    assert read == 2 * WINDOW_LINES


def test_a_long_line_gets_the_translations_of_its_sentences(model: Transformer, tokenizer: Tokenizer) -> None:
    settings = dataclasses.replace(SETTINGS, n_best=2)
    translator = Translator(TorchEngine(model.eval()), tokenizer, settings, max_source_tokens=10)
    long = [f"{' '.join(WORDS[i % 5 : i % 5 + 1 + i % 3])} ." for i in range(300)]
    unknown = "漢字 字 漢"
    lines = ["one", " ".join(long), "two", " ".join([*long[:7], unknown]), "one " * 1000]
    found = list(translator.translate_n_best(lines))
    alone = {line: next(translator.translate_n_best([line])) for line in {*long, "one", "two"}}
    for line, translations in (("one", found[0]), ("two", found[2])):
        assert [t.text for t in translations] == [t.text for t in alone[line]]
    for rank in range(2):
        best = [alone[sentence][rank] for sentence in long]
        assert found[1][rank].text == " ".join(translation.text for translation in best)
        assert found[1][rank].score == pytest.approx(sum(translation.score for translation in best) / 300)
        assert found[3][rank].text == " ".join([*(translation.text for translation in best[:7]), unknown])
    parts = tokenizer.parts([lines[4]], 10)[0]
    assert [word for part in parts for word in part.text.split()] == ["one"] * 1000
    texts = [next(translator.translate([part.text])) for part in parts]
    assert found[4][0].text == " ".join(texts)


def test_text_that_the_vocabulary_does_not_know_is_copied(model: Transformer, tokenizer: Tokenizer) -> None:
    settings = dataclasses.replace(SETTINGS, n_best=2)
    translator = Translator(TorchEngine(model.eval()), tokenizer, settings)
    found = list(translator.translate_n_best(["漢字  und .", "one 漢字", "."]))
    assert found[0] == (Translation("漢字 und .", 0.0),)
    assert [len(translations) for translations in found[1:]] == [2, 2]


def test_batches_hold_every_index_once_within_the_budget() -> None:
    lengths = [3, 9, 1, 4, 4, 30, 2, 8]
    batches = list(batches_by_length(lengths, 16))
    assert sorted(itertools.chain(*batches)) == list(range(8))
    assert batches[0] == [5]  # longer than the budget: alone
    assert all(len(batch) * max(lengths[i] for i in batch) <= 16 for batch in batches[1:])


def test_a_loaded_model_is_the_saved_one(model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "model"
    save_model(folder, model, tokenizer, {"bleu": 12.5})
    loaded, loaded_tokenizer = load_model(folder)
    assert loaded.architecture == model.architecture
    assert loaded.options == model.options
    assert not loaded.training
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert load_file(folder / "model.safetensors").keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert json.loads((folder / "config.json").read_text())["card"] == {"bleu": 12.5}
    lines = sentences(10)
    assert list(Translator(TorchEngine(loaded.eval()), loaded_tokenizer, SETTINGS).translate(lines)) == list(
        Translator(TorchEngine(model.eval()), tokenizer, SETTINGS).translate(lines)
    )


def test_a_view_into_a_supernet_is_saved_alone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    large = dataclasses.replace(ARCHITECTURE, encoder_width=32, decoder_width=32)
    supernet = Supernet(large, tokenizer.vocabulary_size)
    small = supernet.subnetwork(ARCHITECTURE)
    save_model(tmp_path, small, tokenizer, {})
    loaded, _ = load_model(tmp_path)
    source_BS, target_BT = torch.tensor([[4, 5, EOS_ID]]), torch.tensor([[1, 6]])
    assert torch.equal(loaded(source_BS, target_BT).hidden_BTD, small.eval()(source_BS, target_BT).hidden_BTD)


def test_a_failed_write_leaves_the_old_model(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path, model, tokenizer, {"version": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(InputError, match="No space left"):
        save_model(tmp_path, model, tokenizer, {"version": 2})
    load_model(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["card"] == {"version": 1}
    assert len(list(tmp_path.iterdir())) == 3


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        load_model(tmp_path / "nowhere")
    assert len(refused.value.problems) == 3


def test_a_pickle_is_refused_unread(model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    folder = tmp_path / "model"
    save_model(folder, model, tokenizer, {})
    names = ["pytorch_model.bin", "a.pt", "b.PTH", "c.ckpt", "d.pkl", "e.pickle"]
    for name in names:
        (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match="trusted") as refused:
        load_model(folder)
    assert sorted(problem.split(" ")[0] for problem in refused.value.problems) == sorted(names)
    for name in names:
        (folder / name).unlink()
    load_model(folder)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match="safetensors"):
        load_model(folder)
    assert not (tmp_path / "sprung").exists()


def test_a_link_out_of_the_folder_is_refused(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    save_model(folder, model, tokenizer, {})
    (folder / "tokenizer.json").rename(folder / "moved.json")
    (folder / "tokenizer.json").symlink_to("moved.json")
    load_model(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "moved.json").rename(tmp_path / "moved.json")
    (folder / "tokenizer.json").symlink_to(Path("..") / "moved.json")
    with pytest.raises(InputError, match=r"tokenizer\.json links to .*moved\.json"):
        load_model(folder)
    (tmp_path / "linked").symlink_to(folder)
    (folder / "tokenizer.json").unlink()
    (tmp_path / "moved.json").rename(folder / "tokenizer.json")
    load_model(tmp_path / "linked")  # the folder itself may be a link


def test_every_tensor_that_does_not_fit_is_listed(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path, model, tokenizer, {})
    weights = load_file(tmp_path / "model.safetensors")
    first, second, *_ = weights
    del weights[first]
    weights[second] = torch.zeros(3, 3, 3)
    weights["alien"] = torch.zeros(1)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError) as refused:
        load_model(tmp_path)
    assert {problem.split(":")[0] for problem in refused.value.problems} == {first, second, "alien"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 1"),
        ({"vocabulary_size": 13}, "tokenizer"),
        ({"tokenizer_sha256": "of another tokenizer with as many tokens"}, "tokenizer"),
        ({"vocabulary_size": "many"}, "config.json"),
        ({"architecture": {"encoder_width": 16}}, "encoder: missing"),
        ({"options": {"norm": "pre", "alien": 1}}, "alien"),
    ],
)
def test_a_wrong_configuration_is_refused(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    save_model(tmp_path, model, tokenizer, {})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


def test_a_truncated_weights_file_is_refused(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path, model, tokenizer, {})
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        load_model(tmp_path)
