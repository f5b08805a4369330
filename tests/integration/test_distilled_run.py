"""A teacher within a run: what it is given, what students get, what is compared, and what starts again."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from automoe.data.batching import TokenisedCorpus
from automoe.errors import InputError
from automoe.inference.backends import load_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.ensemble import EnsembleEngine
from automoe.inference.model_folder import load_model, model_digest
from automoe.inference.translator import Translator
from automoe.run import distil as distilling
from automoe.run.context import Run
from automoe.run.folder import RunFolder
from automoe.run.pipeline import stage_names
from automoe.run.prepare import Prepared, prepare
from automoe.run.recipe import load_recipe
from helpers.tiny_run import Listener, run_here, write_tiny_recipe
from helpers.toy_teacher import digit_tokenizer, save_teacher

pytestmark = pytest.mark.slow

BLOCK = 200
FIXED = ["systems=[{name: wide, architecture: largest-dense}]", "baseline=wide", "fine_tuning=null"]


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    monkeypatch.setattr(distilling, "BLOCK", BLOCK)


def pairs_of(folder: Path, split: str) -> list[list[str]]:
    return [line.split("\t")[:2] for line in (folder / f"{split}.tsv").read_text().splitlines()]


def run_of(recipe: Path, *overrides: str) -> Run:
    folder = RunFolder(recipe.parent / "runs" / "tiny", "tiny", lambda text: None, lambda refusal: False)
    return Run(load_recipe(recipe, [*FIXED, *overrides]), folder, Listener())


class Recording:
    """An engine that notes the sources of every batch, and may fail before one."""

    def __init__(self, inner, tokenizer, fails_at=None):
        self.inner, self.tokenizer, self.fails_at = inner, tokenizer, fails_at
        self.batches: list[list[str]] = []

    def search(self, source_BS, settings, forced_TBK=None):
        if len(self.batches) == self.fails_at:
            raise KeyboardInterrupt
        self.batches.append(self.tokenizer.decode(source_BS.tolist()))
        return self.inner.search(source_BS, settings, forced_TBK)

    @property
    def sources(self) -> list[str]:
        return list(itertools.chain.from_iterable(self.batches))


class Engines:
    """In place of `load_engine`: records what the engines of one model, which it makes, are given."""

    def __init__(self):
        self.made: list[Recording] = []
        self.next_fails_at = None

    def __call__(self, *arguments):
        inner, tokenizer = load_engine(*arguments)
        self.made.append(Recording(inner, tokenizer, self.next_fails_at))
        self.next_fails_at = None
        return self.made[-1], tokenizer


@pytest.fixture
def engines(monkeypatch) -> Engines:
    engines = Engines()
    monkeypatch.setattr(distilling, "load_engine", engines)
    return engines


def translations_of(folder: Path) -> dict[str, str]:
    lines = (folder / "distilled.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def corpus(prepared: Prepared) -> dict[str, list[list[int]]]:
    found = prepared.train
    return {side: [found.sentence(side, k) for k in range(len(found))] for side in ("source", "target")}


def test_a_teacher_sees_the_training_sources_alone_and_its_pairs_follow_the_original_ones(tmp_path, engines):
    """A teacher of another vocabulary; what it writes is what the translator of its folder does."""
    recipe = write_tiny_recipe(tmp_path)
    model = save_teacher(tmp_path / "teacher", digit_tokenizer(21))
    run = run_of(recipe, "distillation={teacher: teacher, beam_size: 3, students: [wide]}")
    prepared = prepare(run)
    taught = distilling.distil(run, prepared, [])
    assert taught.stage.name == "distil"

    train = pairs_of(tmp_path, "train")
    unseen = {source for split in ("valid", "test") for source, _ in pairs_of(tmp_path, split)}
    unseen -= {source for source, _ in train}
    assert len(unseen) > 50
    (engine,) = engines.made
    assert sorted(engine.sources) == sorted({source for source, _ in train})
    assert not unseen & set(engine.sources)
    assert len(engine.batches) >= 3

    engine, tokenizer = load_engine(model, "onnx")
    settings = BeamSettings(beam_size=3)
    sources = [source for source, _ in train]
    expected = list(Translator(engine, tokenizer, settings).translate(sources))
    assert len(set(expected)) > 100  # they depend on the source
    written = translations_of(taught.stage.folder)
    assert [written[source] for source in sources] == expected

    rows = corpus(taught)
    encode = prepared.tokenizer.encode
    texts = {"source": sources, "target": [target for _, target in train]}
    kept = [k for k, text in enumerate(expected) if text.strip()]
    assert len(kept) > 500
    assert rows["source"] == encode([*sources, *(sources[k] for k in kept)])
    assert rows["target"] == encode([*texts["target"], *(expected[k] for k in kept)])
    facts = json.loads((taught.stage.folder / "report.json").read_text())
    assert (facts["sources"], facts["pairs"]) == (len(written), len(kept))
    assert taught.valid is prepared.valid
    assert TokenisedCorpus.load(prepared.stage.folder / "train").offsets["source"].size == len(train) + 1


def test_pairs_with_too_many_tokens_are_left_out_on_both_sides(tmp_path, engines):
    recipe = write_tiny_recipe(tmp_path)
    save_teacher(tmp_path / "teacher", digit_tokenizer(21))
    run = run_of(recipe, "distillation={teacher: teacher, students: [wide]}", "data.max_tokens=5")
    prepared = prepare(run)
    taught = distilling.distil(run, prepared, [])
    lengths = [len(row) for rows in corpus(taught).values() for row in rows]
    assert max(lengths) == 5
    (engine,) = engines.made
    assert max(map(len, prepared.tokenizer.encode(engine.sources))) == 5
    assert any(len(prepared.tokenizer.encode([source])[0]) > 5 for source, _ in pairs_of(tmp_path, "train"))
    assert len(prepared.train) < len(taught.train) <= 2 * len(prepared.train)


def test_what_was_interrupted_goes_on_to_the_same_corpus(tmp_path, engines):
    corpora = []
    for name in ("whole", "broken"):
        (folder := tmp_path / name).mkdir()
        recipe = write_tiny_recipe(folder)
        save_teacher(folder / "teacher", digit_tokenizer(21))
        run = run_of(recipe, "distillation={teacher: teacher, students: [wide]}")
        prepared = prepare(run)
        if name == "broken":
            engines.next_fails_at = 3
            with pytest.raises(KeyboardInterrupt):
                distilling.distil(run, prepared, [])
            stage = run.folder.path / "distil"
            assert not (stage / "train").exists()
            records = [json.loads(line) for line in (stage / distilling.JOURNAL).read_text().splitlines()]
        taught = distilling.distil(run, prepared, [])
        corpora.append((corpus(taught), translations_of(taught.stage.folder), taught.stage.fingerprint))
    assert corpora[0] == corpora[1]
    whole, broken, resumed = engines.made
    assert len(records) >= 1
    assert len(broken.batches) == 3
    sources = list(corpora[0][1])
    assert set(resumed.sources) == set(sources[BLOCK * len(records) :])
    assert whole.batches[-len(resumed.batches) :] == resumed.batches


def test_an_ensemble_of_folders_teaches_as_its_engine_translates(tmp_path):
    recipe = write_tiny_recipe(tmp_path)
    folders = [save_teacher(tmp_path / f"teacher{seed}", digit_tokenizer(21), seed) for seed in (1, 2)]
    run = run_of(
        recipe, "distillation={teacher: {ensemble: [teacher1, teacher2]}, beam_size: 2, students: [wide]}"
    )
    taught = distilling.distil(run, prepare(run), [])
    models, tokenizers = zip(*map(load_model, folders), strict=True)
    written = translations_of(taught.stage.folder)
    settings = BeamSettings(beam_size=2)
    together = Translator(EnsembleEngine(models), tokenizers[0], settings)
    alone = Translator(load_engine(folders[0])[0], tokenizers[0], settings)
    assert list(written.values()) == list(together.translate(written))
    assert list(written.values()) != list(alone.translate(written))


def test_other_settings_or_weights_start_it_again_and_only_when_that_is_allowed(tmp_path):
    recipe = write_tiny_recipe(tmp_path)
    save_teacher(tmp_path / "teacher", digit_tokenizer(21))
    given = "distillation={teacher: teacher, students: [wide]}"
    run = run_of(recipe, given)
    prepared = prepare(run)
    fingerprint = distilling.distil(run, prepared, []).stage.fingerprint
    moved = (tmp_path / "teacher").rename(tmp_path / "elsewhere")
    same = run_of(recipe, "distillation={teacher: elsewhere, students: [wide]}")
    assert distilling.distil(same, prepared, []).stage.fingerprint == fingerprint
    run = run_of(recipe, "distillation={teacher: elsewhere, students: [wide], beam_size: 4}")
    with pytest.raises(InputError, match=r"distillation\.beam_size: 5 -> 4") as caught:
        distilling.distil(run, prepared, [])
    assert "so this would start again: distil" in caught.value.problems
    given = "distillation={teacher: elsewhere, students: [wide]}"
    run = run_of(recipe, given, "translation.length_penalty=1.0")
    with pytest.raises(InputError, match=r"translation\.length_penalty: 0\.6 -> 1\.0"):
        distilling.distil(run, prepared, [])
    save_teacher(moved, digit_tokenizer(21), seed=2)
    with pytest.raises(InputError, match=r"distillation\.teacher"):
        distilling.distil(run_of(recipe, given), prepared, [])


SYSTEMS = [
    "systems=[{name: mine, search: evolution}, {name: wide, architecture: largest-dense},"
    "{name: switch, architecture: uniform, minutes_of: wide}]",
    "baseline=wide",
    "fine_tuning=null",
    "search.algorithm={iterations: 1, population: 4, parents: 2, mutations: 2, crossovers: 2}",
]
TAUGHT = "distillation={teacher: wide, students: [mine, wide, switch]}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, list[str]]:
    """A run's recipe, after it went without a teacher and then with one; what the second one said."""
    recipe = write_tiny_recipe(tmp_path_factory.mktemp("finished"), steps=4)
    run_here(recipe, *SYSTEMS, until="evaluate")
    return recipe, run_here(recipe, *SYSTEMS, TAUGHT)


def became(said: list[str]) -> dict[str, str]:
    words = ("done before", "starts", "continues")
    return dict(parts for line in said if len(parts := line.split(": ")) == 2 and parts[1] in words)


def model_weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model" / "model.safetensors")


def test_a_teacher_leaves_what_was_made_without_one(finished):
    recipe, said = finished
    stages = became(said)
    started = {name for name, what in stages.items() if what == "starts"}
    students = ("mine-distilled", "wide-distilled", "switch-distilled")
    fresh = {f"seed-1/{kind}-{name}" for kind in ("train", "evaluate") for name in students}
    assert started == fresh | {"seed-1/distil", "report"}
    assert stages["seed-1/latency"] == "continues"
    loaded = load_recipe(recipe, [*SYSTEMS, TAUGHT])
    assert {n for n in stage_names(loaded.recipe, "report") if n != "profile"} == set(stages)
    assert set(became(run_here(recipe, *SYSTEMS, TAUGHT)).values()) == {"done before"}


def test_students_have_the_architecture_and_the_steps_of_their_twins_and_other_weights(finished):
    seed = finished[0].parent / "runs" / "tiny" / "seed-1"
    for twin in ("mine", "wide", "switch"):
        folders = [seed / f"train-{name}" for name in (twin, f"{twin}-distilled")]
        configs = [json.loads((folder / "model" / "config.json").read_text()) for folder in folders]
        assert configs[0]["architecture"] == configs[1]["architecture"]
        facts = [json.loads((folder / "training.json").read_text()) for folder in folders]
        histories = [
            (folder / fact["history"] / "history.jsonl").read_text().splitlines()
            for folder, fact in zip(folders, facts, strict=True)
        ]
        assert len(histories[0]) == len(histories[1])
        weights = [model_weights(folder) for folder in folders]
        assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])


def test_the_report_compares_each_student_with_its_twin(finished):
    report = finished[0].parent / "runs" / "tiny" / "report"
    text = (report / "results.md").read_text()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")]
    expected = ["mine", "mine-distilled", "wide", "wide-distilled", "switch", "switch-distilled"]
    assert rows[2:8] == expected
    for twin in ("mine", "wide", "switch"):
        assert sum(line.startswith(f"- {twin}-distilled against {twin}: ") for line in text.splitlines()) == 1
    assert "| distillation, the teacher's translations |" in text
    assert "wide translated the training sources (beam 5)" in (report / "report.html").read_text()


def test_another_teacher_starts_the_students_again_alone(finished):
    with pytest.raises(InputError, match=r"distillation\.teacher: wide -> mine") as caught:
        run_here(finished[0], *SYSTEMS, "distillation={teacher: mine, students: [mine]}")
    (start,) = (p for p in caught.value.problems if p.startswith("so this would start again: "))
    names = ("distil", "train-mine-distilled", "evaluate-mine-distilled", "latency")
    assert start == f"so this would start again: {', '.join(f'seed-1/{name}' for name in names)}"


def test_the_models_of_all_seeds_teach_together(tmp_path):
    recipe = write_tiny_recipe(tmp_path, steps=3)
    overrides = [*FIXED, "seeds=[1, 2]", "distillation={teacher: {ensemble: wide}, students: [wide]}"]
    stages = list(became(run_here(recipe, *overrides, until="train")))
    assert stages == [
        *("prepare", "budget", "seed-1/train-wide", "seed-2/train-wide", "distil"),
        *("seed-1/train-wide-distilled", "seed-2/train-wide-distilled"),
    ]
    names = stage_names(load_recipe(recipe, overrides).recipe, "train")
    assert [name for name in names if name != "profile"] == stages
    run = tmp_path / "runs" / "tiny"
    written = translations_of(run / "distil")
    models, tokenizers = zip(
        *(load_model(run / f"seed-{seed}" / "train-wide" / "model") for seed in (1, 2)), strict=True
    )
    assert list(written.values()) == list(
        Translator(EnsembleEngine(models), tokenizers[0]).translate(written)
    )
    students = [model_weights(run / f"seed-{seed}" / "train-wide-distilled") for seed in (1, 2)]
    assert any((students[0][name] != students[1][name]).any() for name in students[0])


def test_several_systems_teach_together_and_one_model_of_two_names_once(tmp_path):
    recipe = write_tiny_recipe(tmp_path, steps=3)
    twice = "{name: wide, architecture: largest-dense}, {name: again, architecture: largest-dense}"
    overrides = [
        f"systems=[{twice}, {{name: switch, architecture: uniform}}]",
        *("baseline=wide", "fine_tuning=null"),
        "distillation={teacher: {ensemble: [wide, again, switch]}, beam_size: 2, students: [wide]}",
        "seeds=[1, 2]",
    ]
    stages = list(became(run_here(recipe, *overrides, until="train")))
    assert stages[-2:] == ["seed-2/distil", "seed-2/train-wide-distilled"]
    for seed in (1, 2):
        run = tmp_path / "runs" / "tiny" / f"seed-{seed}"
        models, tokenizers = zip(
            *(load_model(run / f"train-{name}" / "model") for name in ("wide", "switch")), strict=True
        )
        weights = json.loads((run / "distil" / "stage.json").read_text())["inputs"]["weights of the teacher"]
        assert weights == [model_digest(run / f"train-{name}" / "model") for name in ("wide", "switch")]
        written = translations_of(run / "distil")
        together = Translator(EnsembleEngine(models), tokenizers[0], BeamSettings(beam_size=2))
        assert list(written.values()) == list(together.translate(written))
