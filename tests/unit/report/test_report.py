"""Pictures are checked by what their figures hold, tables to the last character."""

import csv
import io
from pathlib import Path

import pandas
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer, dense
from automoe.errors import InputError
from automoe.report import architecture_drawing, pictures, tables
from automoe.report.run_report import budget_note
from automoe.report.tables import Result
from automoe.search.candidate import Candidate, front
from automoe.search.log import LogEntry, SearchName

ARCHITECTURE = Architecture(
    encoder_width=64,
    decoder_width=48,
    qkv_dim=64,
    encoder=(
        EncoderLayer(4, (128, 256, 0), top_k=2),
        EncoderLayer(8, (512,)),
        EncoderLayer(1, (64,)),
    ),
    decoder=(
        DecoderLayer(4, 2, (512, 128)),
        DecoderLayer(8, 4, (384,), encoder_layers_attended=3),
    ),
)


def artists(figure: Figure, prefix: str) -> dict[str, object]:
    """What the figure draws, by gid without the prefix."""
    found = list(figure.findobj(lambda a: (a.get_gid() or "").startswith(prefix)))
    by_gid = {a.get_gid().removeprefix(prefix): a for a in found}
    assert len(by_gid) == len(found), "a gid was used twice"
    return by_gid


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def expert_sizes(architecture: Architecture) -> dict[str, int]:
    stacks = {"encoder": architecture.encoder, "decoder": architecture.decoder}
    return {
        f"{stack}.{index}.{expert}": size
        for stack, layers in stacks.items()
        for index, layer in enumerate(layers)
        for expert, size in enumerate(layer.ffn_sizes)
    }


def pixels(path: Path) -> tuple[int, int]:
    height, width, _ = imread(path).shape
    return width, height


class TestArchitectureDrawing:
    def test_one_bar_an_expert_all_to_one_scale(self, tmp_path: Path) -> None:
        figure = architecture_drawing.draw(ARCHITECTURE, tmp_path / "a.png", "title")
        bars, sizes = artists(figure, "expert:"), expert_sizes(ARCHITECTURE)
        assert bars.keys() == sizes.keys()
        inches_per_unit = {bars[name].get_width() / size for name, size in sizes.items() if size}
        assert max(inches_per_unit) == pytest.approx(min(inches_per_unit))

    def test_only_an_identity_expert_is_dashed(self, tmp_path: Path) -> None:
        figure = architecture_drawing.draw(ARCHITECTURE, tmp_path / "a.png", "title")
        dashed = {
            n for n, bar in artists(figure, "expert:").items() if bar.get_linestyle() not in ("-", "solid")
        }
        assert dashed == {"encoder.0.2"}
        assert texts(figure).count("identity") == 1

    def test_routers_attention_and_words(self, tmp_path: Path) -> None:
        figure = architecture_drawing.draw(ARCHITECTURE, tmp_path / "a.png", "98 ms, 13 BLEU")
        assert artists(figure, "router:").keys() == {"encoder.0", "decoder.0"}
        assert artists(figure, "self:").keys() == {f"encoder.{i}" for i in range(3)} | {
            "decoder.0",
            "decoder.1",
        }
        assert artists(figure, "cross:").keys() == {"decoder.0", "decoder.1"}
        words = texts(figure)
        assert "98 ms, 13 BLEU" in words
        heads = sorted(word for word in words if word.endswith(("head", "heads")))
        assert heads == ["1 head", "2 heads", "4 heads", "4 heads", "4 heads", "8 heads", "8 heads"]

    def test_a_curve_starts_at_the_middle_of_the_layers_attended_to(self, tmp_path: Path) -> None:
        figure = architecture_drawing.draw(ARCHITECTURE, tmp_path / "a.png", "title")
        cards, curves = artists(figure, "layer:"), artists(figure, "span:")
        crosses = artists(figure, "cross:")
        for decoder, first in (("decoder.0", "encoder.2"), ("decoder.1", "encoder.0")):
            points = curves[decoder].get_path().vertices
            low, last = cards[first], cards["encoder.2"]
            middle = (low.get_y() + last.get_y() + last.get_height()) / 2
            assert points[0][1] == pytest.approx(middle)
            box = crosses[decoder]
            assert points[-1] == pytest.approx([box.get_x(), box.get_y() + box.get_height() / 2])

    def test_routing_shares_shade_their_bars(self, tmp_path: Path) -> None:
        shares = {"decoder.0": [0.9, 0.1]}
        figure = architecture_drawing.draw(ARCHITECTURE, tmp_path / "a.png", "title", shares)
        bars = artists(figure, "expert:")
        busy, idle = (sum(bars[f"decoder.0.{i}"].get_facecolor()[:3]) for i in (0, 1))
        assert busy < idle, "the busier expert is the darker one"
        assert {"512   90%", "128   10%"} <= set(texts(figure))

    def test_shares_that_do_not_fit(self, tmp_path: Path) -> None:
        shares = {"decoder.0": [1.0], "encoder.7": [0.5, 0.5]}
        with pytest.raises(
            ValueError, match=r"decoder\.0: 1 shares for 2 experts; encoder\.7: 2 shares for 0"
        ):
            architecture_drawing.draw(ARCHITECTURE, tmp_path / "a.png", "title", shares)

    @pytest.mark.parametrize(
        "architecture",
        [
            dense(512, 2048, 8, 1, 1),
            Architecture(8, 8, 8, (EncoderLayer(8, (0,)),), (DecoderLayer(8, 8, (0, 0)),)),
            Architecture(64, 64, 64, (EncoderLayer(8, (2048,) * 16),), (DecoderLayer(8, 8, (3072,) * 16),)),
        ],
        ids=["one layer", "only identity experts", "sixteen experts"],
    )  # fmt: skip
    def test_nothing_leaves_the_picture_or_its_card(self, architecture: Architecture, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        shares = {
            f"decoder.{i}": [1 / len(d.experts)] * len(d.experts) for i, d in enumerate(architecture.decoder)
        }
        figure = architecture_drawing.draw(architecture, path, "title", shares)
        page = figure.bbox
        cards = artists(figure, "layer:")
        for text in figure.axes[0].texts:
            box = text.get_window_extent()
            assert page.x0 <= box.x0 < box.x1 <= page.x1, text.get_text()
            assert page.y0 <= box.y0 < box.y1 <= page.y1, text.get_text()
            if text.get_text().endswith("%"):
                assert any(
                    c.get_window_extent().x0 < box.x0 and box.x1 < c.get_window_extent().x1
                    for c in cards.values()
                )
        for name, bar in artists(figure, "expert:").items():
            card = cards[name.rsplit(".", 1)[0]]
            assert card.get_y() < bar.get_y()
            assert bar.get_y() + bar.get_height() < card.get_y() + card.get_height()
        assert pixels(path)[0] > 1000

    def test_svg_is_the_same_each_time(self, tmp_path: Path) -> None:
        for name in ("a.svg", "b.svg"):
            architecture_drawing.draw(ARCHITECTURE, tmp_path / name, "title")
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


class TestLossCurves:
    def test_lines_hold_the_records(self, tmp_path: Path) -> None:
        noisy = [{"step": s, "loss": 8 / s, "tokens_per_second": 1.0} for s in range(1, 101)]
        noisy[49] |= {"validation/smallest": 5.0, "validation/largest": 4.0}
        noisy[99] |= {"validation/smallest": 4.5, "validation/largest": 3.5}
        single = [{"step": 1, "loss": 7.0}, {"step": 2, "loss": 6.0, "validation/dense": 5.5}]
        figure = pictures.loss_curves({"supernet": noisy, "dense": single}, tmp_path / "loss.png")

        raw = artists(figure, "raw:")
        assert list(raw["supernet"].get_ydata()) == [record["loss"] for record in noisy]
        assert list(raw["dense"].get_xdata()) == [1, 2]
        mean = artists(figure, "mean:")["supernet"]
        # A window of 100 // 40 = 2 steps: the first mean is that of steps 1 and 2.
        assert mean.get_ydata()[0] == pytest.approx((8 + 4) / 2)
        assert len(mean.get_ydata()) == 99
        validation = {gid: (list(a.get_xdata()), list(a.get_ydata()), a.get_label())
                      for gid, a in artists(figure, "validation/").items()}  # fmt: skip
        assert validation == {
            "smallest:supernet": ([50, 100], [5.0, 4.5], "supernet: smallest"),
            "largest:supernet": ([50, 100], [4.0, 3.5], "supernet: largest"),
            "dense:dense": ([2], [5.5], "dense"),
        }
        assert pixels(tmp_path / "loss.png")[0] > 1000

    def test_more_trainings_than_colours(self, tmp_path: Path) -> None:
        histories = {f"training {i}": [{"step": 1, "loss": float(i)}] for i in range(9)}
        figure = pictures.loss_curves(histories, tmp_path / "loss.png")
        assert artists(figure, "mean:").keys() == histories.keys()

    def test_an_empty_history(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="without records: dense"):
            pictures.loss_curves({"dense": []}, tmp_path / "loss.png")


class TestCandidates:
    @staticmethod
    def candidate(latency_ms: float, score: float | None) -> Candidate:
        return Candidate(
            dense(8, 8, 8, 1, 1), {"latency_ms": latency_ms, "memory_bytes": latency_ms * 2**20}, score
        )

    def test_points_front_and_marks(self, tmp_path: Path) -> None:
        made = [
            self.candidate(latency, score) for latency, score in ((10, 5.0), (20, 4.0), (30, 4.5), (40, 3.0))
        ]
        automoe = SearchName("automoe", "evolution", "whole")
        other = SearchName("random", "random", "whole")
        check = SearchName("feasibility", "feasibility", "whole")
        entries = [LogEntry(automoe, 0, i, c, feasible=True) for i, c in enumerate(made[:3])]
        entries += [LogEntry(other, 0, 0, made[3], feasible=True)]
        entries += [LogEntry(other, 0, 1, self.candidate(90, 2.0), feasible=False)]
        entries += [LogEntry(check, 0, 0, self.candidate(15, None), feasible=True)]
        entries += [LogEntry(automoe, 0, 3, Candidate(dense(8, 8, 8, 1, 1), {}, 1.0), feasible=True)]

        figure = pictures.candidates(
            entries, "memory_bytes", tmp_path / "c.png",
            front=front(made, "memory_bytes"), chosen=made[1], baselines={"dense": self.candidate(70, 3.5)},
        )  # fmt: skip
        systems = {name: a.get_offsets().tolist() for name, a in artists(figure, "system:").items()}
        # MiB on the axis; no point for what has no score or no such cost.
        assert systems == {"automoe": [[10, 5.0], [20, 4.0], [30, 4.5]], "random": [[40, 3.0]]}
        assert artists(figure, "infeasible")[""].get_offsets().tolist() == [[90, 2.0]]
        line = artists(figure, "front")[""]
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([10, 20, 40], [5.0, 4.0, 3.0])
        assert line.get_drawstyle() == "steps-post"
        assert artists(figure, "chosen")[""].get_offsets().tolist() == [[20, 4.0]]
        assert artists(figure, "baseline:")["dense"].get_offsets().tolist() == [[70, 3.5]]
        assert figure.axes[0].get_xlabel() == "memory (MiB)"
        assert pixels(tmp_path / "c.png")[0] > 1000

    def test_a_search_without_any_scored_candidate(self, tmp_path: Path) -> None:
        figure = pictures.candidates([], "latency_ms", tmp_path / "c.png", front=())
        assert not artists(figure, "system:")
        assert (tmp_path / "c.png").stat().st_size > 1000


# fmt: off
RESULTS = [
    Result(
        "dense", 12.0, 40.0, 12.5, 118.0,
        {
            "latency_ms": 120.0, "flops": 1.2e9, "parameters": 3e6, "active_parameters": 3e6,
            "memory_bytes": 200 * 2**20,
        },
        1.2e9, 0.0, 6.5,
    ),
    Result(
        "auto|moe", bleu=13.456, predicted_latency_ms=49.04,
        costs={"latency_ms": 50.0, "flops": 0.8e9, "parameters": 5e6},
        flops_as_routed=0.7654e9, sparsity=0.6,
    ),
]
# fmt: on


class TestTables:
    def test_markdown(self) -> None:
        assert tables.to_markdown(RESULTS, "dense") == (
            "| system | BLEU | chrF | tokenised BLEU | predicted (ms) | latency (ms) | speed-up | GFLOPs "
            "| GFLOPs as routed | FLOPs reduction "
            "| parameters (M) | active (M) | sparsity | memory (MiB) | training (min) |\n"
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: "
            "| ---: | ---: |\n"
            "| dense | 12.00 | 40.00 | 12.50 | 118.0 | 120.0 | 1.00× | 1.2 | 1.2 | 1.00× | 3.00 | 3.00 "
            "| 0% | 200 | 6.5 |\n"
            "| auto\\|moe | 13.46 | – | – | 49.0 | 50.0 | 2.40× | 0.8 | 0.765 | 1.50× | 5.00 | – | 60% "
            "| – | – |\n"
        )

    def test_csv_keeps_every_digit_and_pandas_reads_what_is_missing(self) -> None:
        text = tables.to_csv(RESULTS, "dense")
        assert next(csv.reader(io.StringIO(text))) == [
            "system", "bleu", "chrf", "tokenised_bleu", "predicted_latency_ms", "latency_ms", "speed_up",
            "flops", "flops_as_routed", "flops_reduction", "parameters", "active_parameters", "sparsity",
            "memory_bytes", "train_minutes",
        ]  # fmt: skip
        frame = pandas.read_csv(io.StringIO(text)).set_index("system")
        row = frame.loc["auto|moe"]
        assert row["bleu"] == 13.456
        assert row["speed_up"] == pytest.approx(2.4)
        assert row["flops_reduction"] == pytest.approx(1.5)
        assert row.isna().to_dict() | {"chrf": True, "memory_bytes": True} == row.isna().to_dict()
        assert not frame.loc["dense"].isna().any()

    def test_a_reference_without_latency_gives_no_speed_up(self) -> None:
        text = tables.to_csv([Result("dense"), RESULTS[1]], "dense")
        assert pandas.read_csv(io.StringIO(text))["speed_up"].isna().all()

    def test_a_cost_has_a_column_where_a_row_has_it(self) -> None:
        with_throughput = Result("dense", costs={"latency_ms": 50.0, "throughput_sentences_s": 20.0})
        text = tables.to_markdown([with_throughput], "dense")
        assert "| latency (ms) | speed-up | sentences/s | training (min) |" in text
        assert "| 50.0 | 1.00× | 20.0 | – |" in text

    def test_every_problem_of_the_rows_is_listed(self) -> None:
        with pytest.raises(InputError) as caught:
            tables.to_markdown([*RESULTS, RESULTS[0]], "base")
        assert caught.value.problems == (
            "dense: 2 rows have this name",
            "base: is the reference, but no row has this name (rows: dense, auto|moe, dense)",
        )


OLD = {"latency_ms": 5.12, "maximum_ms": None, "reference_ms": None, "noise": None, "broken": []}
THROUGHPUT = "throughput_sentences_s"


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (OLD, "5.1 measured here, which is not the device of the budget."),
        (OLD | {"maximum_ms": 6.0}, "5.1 measured, 6.0 allowed."),
        (OLD | {"maximum_ms": 6.0, "bounded": ["latency_ms"]}, "5.1 measured, 6.0 allowed."),
        (OLD | {"bounded": [THROUGHPUT]}, f"5.1 measured; the bound on {THROUGHPUT} is kept."),
        (
            OLD | {"maximum_ms": 6.0, "bounded": ["latency_ms", THROUGHPUT], "noise": "busy"},
            f"5.1 measured, 6.0 allowed; the bound on {THROUGHPUT} is kept; busy.",
        ),
    ],
)
def test_a_note_says_which_bounds_the_choice_keeps(measured, expected) -> None:
    note = budget_note("hat", {"predicted_latency_ms": 4.96, "measured": measured, "rejected": []})
    assert note == f"hat: at the end of the search, 5.0 ms were predicted, {expected}"
