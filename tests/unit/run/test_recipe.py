"""What a recipe may say; what the command line makes of mistakes is seen in test_bad_input.py."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from automoe.cli.built_in import find_file
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.corpus import load_pairs
from automoe.design.architecture import dense
from automoe.design.architecture_file import save_architecture
from automoe.errors import InputError
from automoe.run.recipe import load_recipe
from automoe.training.settings import SupernetSettings
from helpers.tiny_run import REPOSITORY, write_tiny_recipe

SHIPPED = sorted((REPOSITORY / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_loaded(path):
    recipe = load_recipe(path).recipe
    assert recipe.latency.source == "profile"
    assert recipe.latency.profile is None


def test_a_recipe_without_its_stages_needs_no_torch():
    command = "import sys, automoe.run.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def test_the_measuring_protocol_has_every_value_of_the_recipe(tmp_path: Path):
    values = {
        "backend": "onnx", "precision": "int8", "threads": 3, "beam_size": 4, "source_length": 6,
        "target_length": 7, "batch": 8, "shortlist": 20,
    }  # fmt: skip
    overrides = [f"latency.{name}={value}" for name, value in values.items()]
    recipe = load_recipe(write_tiny_recipe(tmp_path), [*overrides, "data.vocabulary.size=25"]).recipe
    assert recipe.protocol() == MeasuringProtocol(vocabulary_size=25, norm="pre", **values)


def test_files_are_found_beside_the_recipe(tmp_path: Path):
    recipe = write_tiny_recipe(tmp_path)
    loaded = load_recipe(recipe, ["latency.profile=devices/phone.json"])
    assert loaded.recipe.latency.profile == str(tmp_path / "devices" / "phone.json")
    loaded = load_recipe(recipe, ["latency.source=predictor", "latency.predictor=../p.json"])
    assert loaded.recipe.latency.predictor == str(tmp_path.parent / "p.json")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["latency.source=predictor"], ["latency.predictor: missing"]),
        (["latency.source=measurement", "latency.profile=p"], ["profile: is only used with source: profile"]),
        (
            ["latency.source=predictor", "latency.profile=p"],
            ["profile: is only used with source: profile", "predictor: missing"],
        ),
        (["latency.source=guess"], ["latency.source"]),
        (["latency.backend=fast"], ["latency.backend"]),
        (["latency.backend=onnx", "latency.precision=float16"], ["latency.precision: onnx has no float16"]),
        (["latency.search_runs=9"], ["latency.search_runs"]),
    ],
)
def test_a_source_without_its_file_or_an_unknown_name_is_refused(tmp_path, overrides, expected):
    recipe = write_tiny_recipe(tmp_path)
    with pytest.raises(InputError) as caught:
        load_recipe(recipe, overrides)
    assert len(caught.value.problems) == len(expected)
    for part in expected:
        assert part in str(caught.value)


def test_a_tilde_is_the_home_in_every_path(tmp_path: Path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / "space.yaml").write_text((REPOSITORY / "recipes/spaces/copy-toy.yaml").read_text())
    save_architecture(dense(16, 32, 2, 2, 1), home / "mine.yaml")
    write_tiny_recipe(home)
    overrides = ["data.train.path=~/a.tsv", "data.valid={source_path: ~/a.en, target_path: ~/a.de}"]
    overrides += ["space=~/space.yaml", "systems=[{name: a, architecture: ~/mine.yaml}]", "baseline=a"]
    loaded = load_recipe(home / "tiny.yaml", [*overrides, "fine_tuning=null", "latency.profile=~/p.json"])
    data = loaded.recipe.data
    found = [data.train.path, data.valid.source_path, data.valid.target_path, loaded.recipe.latency.profile]
    assert found == [str(home / name) for name in ("a.tsv", "a.en", "a.de", "p.json")]
    assert loaded.architectures == {"a": dense(16, 32, 2, 2, 1)}


def test_a_folder_is_no_recipe_here(tmp_path: Path):
    """Which file a project or a name stands for is found in one place, `automoe.cli.built_in`."""
    write_tiny_recipe(tmp_path).rename(tmp_path / "recipe.yaml")
    assert load_recipe(find_file(tmp_path, "recipe")).recipe.name == "tiny"
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(tmp_path)


@pytest.mark.parametrize("code", ["no", "NO", "on", "zh-CN", "pt_BR", "th"])
def test_a_language_code_is_text_without_quotes(tmp_path: Path, code):
    recipe = write_tiny_recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace("target_language: de", f"target_language: {code}"))
    assert load_recipe(recipe).recipe.data.target_language == code
    loaded = load_recipe(recipe, [f"data.source_language={code}", "data.target_language=de"])
    assert (loaded.recipe.data.source_language, loaded.recipe.data.target_language) == (code, "de")


@pytest.mark.parametrize("off", ["off", "false", "null"])
def test_finals_are_off_in_any_of_its_spellings(tmp_path: Path, off):
    assert load_recipe(write_tiny_recipe(tmp_path, finals=off)).recipe.finals is None


def test_a_metric_that_cannot_be_made_is_a_problem_of_the_recipe(tmp_path: Path, monkeypatch):
    assert problems(tmp_path, "data.target_language=german")[0].startswith("data.target_language: expected")
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    (problem,) = problems(tmp_path, "data.target_language=ja-JP")
    assert problem.startswith("data.target_language: ")
    assert "pip install 'automoe[ja]'" in problem
    assert len(problems(tmp_path, "data.target_language=ja", "training.steps=0")) == 2


def test_a_tmx_file_has_the_languages_of_the_recipe_unless_it_names_its_own(tmp_path: Path):
    own = "{path: b.tmx.gz, source_language: en-GB, target_language: de-AT}"
    overrides = ["data.train={path: a.TMX}", f"data.valid={own}", "data.target_language=de-DE"]
    data = load_recipe(write_tiny_recipe(tmp_path), overrides).recipe.data
    languages = [(source.source_language, source.target_language) for source in (data.train, data.valid)]
    assert languages == [("en", "de-DE"), ("en-GB", "de-AT")]
    assert data.test.source_language is None


def problems(tmp_path: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        load_recipe(write_tiny_recipe(tmp_path), overrides)
    return caught.value.problems


def test_mistakes_in_several_sections_are_all_listed_with_their_section(tmp_path):
    found = problems(
        tmp_path,
        "supernet.steps=0",
        "supernet.peak_rate=-1",
        "training.warmup_steps=99",
        "fine_tuning.clip_norm=0",
        "translation={n_best: 9}",
        "data.train={}",
        "data.limits={max_characters: 0}",
        "systems=[dense]",
        "finals={candidates: 2, dense: 3, price: 2}",
        "search.constraints={flops: -1}",
    )
    assert set(found) == {
        "supernet.steps: expected at least 1, got 0",
        "supernet.peak_rate: expected more than 0, got -1",
        "training.warmup_steps: expected at most steps (40), got 99",
        "fine_tuning.clip_norm: expected more than 0, got 0",
        "translation.n_best: expected at most beam_size (5), got 9",
        "data.train: give exactly one of: path; source_path and target_path; dataset",
        "data.limits.max_characters: expected at least 1, got 0",
        "systems[0]: expected keys and values, got 'dense'",
        "finals.price: expected at most 1, got 2",
        "search.constraints.flops: expected more than 0, got -1.0",
    }


@pytest.mark.parametrize("text", ["2e-3", "0.002", "2.0e-3"])
def test_a_number_may_be_written_in_every_way_of_yaml(tmp_path, text):
    recipe = load_recipe(write_tiny_recipe(tmp_path), [f"training.peak_rate={text}"]).recipe
    assert recipe.training.peak_rate == 0.002


@pytest.mark.parametrize(("text", "expected"), [("-3", -3), ("0", 0), ("9223372036854775807", 2**63 - 1)])
def test_any_seed_of_a_generator_is_taken(tmp_path, text, expected):
    assert load_recipe(write_tiny_recipe(tmp_path), [f"seeds=[{text}]"]).recipe.seeds == (expected,)


def test_a_gradient_need_not_be_clipped(tmp_path):
    recipe = load_recipe(write_tiny_recipe(tmp_path), ["training.clip_norm=.inf"]).recipe
    assert recipe.training.clip_norm == math.inf


@pytest.mark.parametrize("key", ["space", "data.train.path", "latency.profile"])
def test_a_path_with_a_character_that_no_path_has_is_refused(tmp_path, key):
    with pytest.raises(InputError, match="NUL"):
        load_recipe(write_tiny_recipe(tmp_path), [f'{key}="a\\0b"'])


def test_a_link_is_what_it_is_called_not_what_it_leads_to(tmp_path):
    """As in folders of data that name every file by its hash, and link to it by its name."""
    recipe = write_tiny_recipe(tmp_path)
    (tmp_path / "blobs").mkdir()
    for name in ("train.tsv", "tiny.yaml"):
        (tmp_path / name).rename(tmp_path / "blobs" / name.encode().hex())
        (tmp_path / name).symlink_to(tmp_path / "blobs" / name.encode().hex())
    source = load_recipe(recipe).recipe.data.train
    assert source.path == str(tmp_path / "train.tsv")
    assert len(load_pairs(source)[0]) == 600


def test_links_that_lead_in_a_circle_are_refused_by_whoever_reads_them(tmp_path):
    (tmp_path / "circle.tsv").symlink_to("circle.tsv")
    source = load_recipe(write_tiny_recipe(tmp_path), ["data.train.path=circle.tsv"]).recipe.data.train
    with pytest.raises(InputError, match=r"circle\.tsv: cannot be read"):
        load_pairs(source)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_recipe_may_be_in_every_encoding_with_a_mark(tmp_path, encoding):
    recipe = write_tiny_recipe(tmp_path, name="größer")
    expected = load_recipe(recipe)
    recipe.write_bytes(recipe.read_text(encoding="utf-8").encode(encoding))
    assert load_recipe(recipe) == expected


def test_a_recipe_in_another_encoding_is_refused_by_its_name(tmp_path):
    recipe = write_tiny_recipe(tmp_path)
    recipe.write_bytes(b"# gr\xf6\xdfer\n" + recipe.read_bytes())
    with pytest.raises(InputError, match=r"tiny\.yaml: is not UTF-8") as caught:
        load_recipe(recipe)
    assert "iconv" in str(caught.value)


def test_a_whole_number_is_a_number_and_dumped_as_one(tmp_path):
    recipe = load_recipe(write_tiny_recipe(tmp_path), ["training.peak_rate=1"]).recipe
    assert repr(recipe.model_dump(mode="json")["training"]["peak_rate"]) == "1.0"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.peak_rate=true", "training.peak_rate: expected a number, got True"),
        ("training.steps=true", "training.steps: expected a whole number, got True"),
        ("training.steps='40'", "training.steps: expected a whole number, got '40'"),
        ("model.dropout=true", "model.dropout: expected a number, got True"),
        ("latency.runs=30.5", "latency.runs: expected a whole number, got 30.5"),
        ("search.constraints={flops: true}", "search.constraints.flops: expected a positive number"),
        ("search.constraints={flops: 6 %}", "search.constraints.flops: expected a positive number"),
        ("search.constraints={bleu: 3}", "search.constraints.bleu: unknown cost"),
        ("supernet=fast", "supernet: expected keys and values"),
        ("training.peak_rate=1e400", "training.peak_rate: expected a finite number, got inf"),
        ("training.balance_coefficient=.inf", "training.balance_coefficient: expected a finite number"),
        ("training.steps=0100", "training.steps: expected a whole number, got '0100'"),
        ("training.steps=1:40", "training.steps: expected a whole number, got '1:40'"),
        ("seeds=[99999999999999999999]", "seeds[0]: expected less than 9223372036854775808"),
        ("name=..", "name: expected letters, digits, `-`, `_` and `.`, and not dots alone, got '..'"),
        ("name=my run", "name: expected letters, digits, `-`, `_` and `.`, and not dots alone"),
        ("name=" + 200 * "x", "name: is too long, 200 bytes: expected at most 150"),
        (f"systems=[{{name: {51 * '語'}, search: random}}]", "systems[0].name: is too long, 153 bytes"),
    ],
)
def test_values_of_the_wrong_kind_are_refused_not_converted(tmp_path, override, expected):
    (found,) = problems(tmp_path, override)
    assert found.startswith(expected)


def test_a_misspelt_key_is_named_with_the_keys_of_its_section(tmp_path):
    (found,) = problems(tmp_path, "data.vocabulary.sise=30")
    assert found == "data.vocabulary.sise: unknown key (known: size, kind)"


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (
            "{name: a}",
            ["give exactly one of: architecture (a file, largest-dense or uniform); search (a str"],
        ),
        ("{name: a, architecture: uniform, search: random}", ["give exactly one of: architecture"]),
        ("{name: a, search: luck}", ["search: unknown strategy 'luck' (known: evolution, random, nsga2)"]),
        (
            "{name: a, architecture: uniform, constraints: {flops: 1}}",
            ["constraints: only a system with sea"],
        ),
        (
            "{name: a, architecture: largest-dense, space: x.yaml}",
            ["space: only a system with search has it"],
        ),
        ("{name: a, architecture: f.yaml, experts: dense}", ["experts: only a system with search has it"]),
        (
            "{name: a, architecture: uniform, constraints: {}, space: x, experts: dense, minutes_of: a}",
            ["space: only", "experts: only", "constraints: only", "minutes_of: expected another system"],
        ),
        ("{name: a, search: random, constraints: {bleu: 1}}", ["constraints.bleu: unknown cost"]),
        ("{name: a b, search: random}", ["name: "]),
        ("{search: random}", ["name: missing"]),
        ("{name: a, search: random, sede: 1}", ["sede: unknown key"]),
        ("automoe", ["expected keys and values, got 'automoe'"]),
    ],
)
def test_an_impossible_system_is_told_what_it_lacks(tmp_path, system, expected):
    found = problems(tmp_path, f"systems=[{{name: fine, search: random}}, {system}]", "baseline=null")
    assert len(found) == len(expected)
    for problem, text in zip(found, expected, strict=True):
        place, told = problem[: len("systems[1]")], problem[len("systems[1]") :].lstrip(":. ")
        assert (place, told[: len(text)]) == ("systems[1]", text)


@pytest.mark.parametrize(
    ("systems", "expected"),
    [
        ("[]", ["expected at least one system"]),
        ("[{name: a, search: random}, {name: a, architecture: uniform}]", ["a: 2 systems have this name"]),
        (
            "[{name: a, search: random}, {name: b, search: random, minutes_of: c}]",
            ["b.minutes_of: no system is called c (there are: a, b)"],
        ),
        (
            "[{name: a, search: random}, {name: b, search: random, minutes_of: a},"
            " {name: c, search: random, minutes_of: b}]",
            ["c.minutes_of: b has no number of steps of its own"],
        ),
        (
            "[{name: a, search: random, minutes_of: z}, {name: a, search: random}]",
            ["a: 2 systems have this name", "a.minutes_of: no system is called z"],
        ),
    ],
)
def test_systems_that_do_not_go_together_are_each_named(tmp_path, systems, expected):
    found = problems(tmp_path, f"systems={systems}", "baseline=null")
    assert len(found) == len(expected)
    for problem, text in zip(found, expected, strict=True):
        assert problem.startswith((f"systems.{text}", f"systems: {text}"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["baseline=largest"], "baseline: expected a system with an architecture (dense, switch), got '"),
        (["baseline=automoe"], "baseline: expected a system with an architecture (dense, switch), got '"),
        (["baseline=switch"], "baseline: switch is itself made from the baseline"),
        (["seeds=[3, 1, 3]"], "seeds: expected each seed once"),
        (["seeds=[]"], "seeds: expected at least 1 entry"),
        (["seeds=7"], "seeds: expected a list, got 7"),
        (["supernet.seed=2"], "supernet.seed: remove it; `seeds` of the recipe sets every seed"),
        (["search.seed=2"], "search.seed: remove it; `seeds` of the recipe sets every seed"),
        (["finals={candidates: 1}"], "finals.candidates: expected at least 2, got 1"),
        (["finals={candidates: 3, dense: 4}"], "finals.dense: expected at most candidates (3), got 4"),
        (["finals={price: 0}"], "finals.price: expected more than 0, got 0"),
        (["finals={candidates: 16}"], "steps: a race of 16 finalists at the price of 0.6 trainings needs"),
        (["search.own_steps={steps: 0}"], "search.own_steps.steps: expected at least 1, got 0"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_go_with_the_others_has_its_one_message(tmp_path, overrides, expected):
    (found,) = problems(tmp_path, *overrides)
    assert found.startswith(expected)


def test_every_seed_of_a_recipe_comes_from_its_list(tmp_path):
    recipe = load_recipe(write_tiny_recipe(tmp_path), ["seeds=[4, 9]"]).recipe
    for seed in recipe.seeds:
        seeded = recipe.with_seed(seed)
        assert seeded.seeds == (seed,)
        assert {s.seed for s in (seeded.supernet, seeded.training, seeded.fine_tuning)} == {seed}
        assert type(seeded.supernet) is SupernetSettings
    without = recipe.model_copy(update={"fine_tuning": None}).with_seed(3)
    assert without.fine_tuning is None


DEEP = """
qkv_dim: 32
encoder:
  {widths: [24, 40], layer_counts: [1, 3], self_attention_heads: [2], ffn_sizes: [32, 96], max_experts: 3}
decoder:
  {widths: [24], layer_counts: [1], self_attention_heads: [2], cross_attention_heads: [2], ffn_sizes: [32]}
"""


def test_a_space_of_a_system_must_be_a_part_of_the_supernets(tmp_path):
    (tmp_path / "deep.yaml").write_text(DEEP)
    (found,) = problems(tmp_path, "systems=[{name: mine, search: random, space: deep.yaml}]", "baseline=null")
    assert found.startswith("systems: mine: ")
    assert found.splitlines()[0].endswith(
        "deep.yaml: is no part of the recipe's space, whose weights it needs"
    )
    assert [line.strip() for line in found.splitlines()[1:]] == [
        "- encoder_width: 40, but there are at most 32",
        "- encoder layers: 3, but there are at most 2",
        *(
            f"- encoder[{layer}]{wrong}, but there are at most {most}"
            for layer in (0, 1)
            for wrong, most in (
                (" experts: 3", 2),
                (".experts[0] FFN size: 96", 64),
                (".experts[1] FFN size: 96", 64),
            )
        ),
    ]


def test_files_that_systems_lack_are_all_named(tmp_path):
    systems = (
        "systems=[{name: one, architecture: no.yaml}, {name: two, search: random, space: none.yaml}, "
        "{name: three, search: random}]"
    )
    found = problems(tmp_path, systems, "baseline=null")
    assert [problem.split(": ")[1] for problem in found] == ["one", "two"]
    assert str(tmp_path / "no.yaml") in found[0]
    assert str(tmp_path / "none.yaml") in found[1]


def test_files_of_systems_are_found_beside_the_recipe_and_searched_where_they_say(tmp_path):
    toy = yaml.safe_load((REPOSITORY / "recipes" / "spaces" / "copy-toy.yaml").read_text())
    toy["encoder"]["layer_counts"] = [2]
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(toy))
    thin = replace(dense(24, 32, 2, 1, 1), qkv_dim=32)
    save_architecture(thin, tmp_path / "thin.yaml")
    systems = (
        "systems=[{name: two, search: random, space: two.yaml}, {name: thin, architecture: thin.yaml},"
        "{name: two-dense, search: random, space: two.yaml, experts: dense}, {name: all, search: random},"
        "{name: large, architecture: largest-dense}, {name: switch, architecture: uniform}]"
    )
    loaded = load_recipe(write_tiny_recipe(tmp_path), [systems, "baseline=thin"])
    assert loaded.spaces["all"] == loaded.space
    assert loaded.spaces["two"].encoder.layer_counts == (2,)
    assert loaded.spaces["two-dense"] == loaded.spaces["two"].dense()
    assert loaded.baseline == thin
    assert loaded.fixed() == {
        "thin": thin,
        "large": loaded.space.largest_dense(),
        "switch": loaded.space.uniform(thin),
    }


@pytest.mark.parametrize(
    ("systems", "baseline", "expected"),
    [
        ("[{name: a, search: random}, {name: b, architecture: largest-dense}]", "null", "b"),
        ("[{name: u, architecture: uniform}, {name: b, architecture: largest-dense}]", "null", "b"),
        (
            "[{name: b, architecture: largest-dense}, {name: c, architecture: largest-dense}]",
            "c",
            "c",
        ),
        ("[{name: a, search: random}, {name: u, architecture: uniform}]", "null", None),
    ],
)
def test_the_baseline_is_the_one_named_or_the_first_with_an_architecture_of_its_own(
    tmp_path, systems, baseline, expected
):
    loaded = load_recipe(write_tiny_recipe(tmp_path), [f"systems={systems}", f"baseline={baseline}"])
    found = loaded.recipe.baseline_system
    assert (found.name if found else None) == expected
    assert loaded.baseline == loaded.space.largest_dense()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ("search: nsga2, objectives: [flops, parameters]", "objectives: expected loss and at least one cost"),
        ("search: nsga2, objectives: [loss]", "objectives: expected loss and at least one cost"),
        ("search: nsga2, objectives: [loss, loss, flops]", "objectives: expected each objective once"),
        ("search: nsga2, objectives: [loss, speed]", "objectives: speed: unknown objective (known: loss, "),
        ("search: evolution, objectives: [loss, flops]", "objectives: evolution has one, the loss"),
        ("architecture: largest-dense, objectives: [loss, flops]", "objectives: only a system with search"),
    ],
)
def test_objectives_that_make_no_front_are_refused(tmp_path: Path, fields: str, told: str):
    with pytest.raises(InputError) as caught:
        load_recipe(write_tiny_recipe(tmp_path), [f"systems=[{{name: mine, {fields}}}]", "baseline=null"])
    assert told in str(caught.value)


def test_objectives_know_what_is_better(tmp_path: Path):
    front = "search: nsga2, objectives: [throughput_sentences_s, loss]"
    systems = (
        f"systems=[{{name: mine, {front}}}, {{name: other, search: nsga2}}, {{name: e, search: evolution}}]"
    )
    mine, other, evolution = load_recipe(
        write_tiny_recipe(tmp_path), [systems, "baseline=null"]
    ).recipe.systems
    assert [(o.name, o.larger_is_better) for o in mine.sought] == [
        ("throughput_sentences_s", True), ("loss", False),
    ]  # fmt: skip
    assert [o.name for o in other.sought] == ["loss", "flops"]
    assert evolution.sought == ()
