"""The pictures of losses and of candidates, checked by what their figures hold."""

from pathlib import Path

import pytest

from automoe.design.architecture import dense
from automoe.report import pictures
from automoe.search.candidate import Candidate, front
from automoe.search.log import LogEntry, SearchName
from helpers.figures import artists, pixels


def test_lines_hold_the_records(tmp_path: Path) -> None:
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


def test_more_trainings_than_colours(tmp_path: Path) -> None:
    histories = {f"training {i}": [{"step": 1, "loss": float(i)}] for i in range(9)}
    figure = pictures.loss_curves(histories, tmp_path / "loss.png")
    assert artists(figure, "mean:").keys() == histories.keys()


def test_a_training_without_records_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without records: dense"):
        pictures.loss_curves({"dense": []}, tmp_path / "loss.png")


def candidate(latency_ms: float, score: float | None) -> Candidate:
    return Candidate(
        dense(8, 8, 8, 1, 1), {"latency_ms": latency_ms, "memory_bytes": latency_ms * 2**20}, score
    )


def test_each_system_has_its_points_and_front_choice_and_baselines_are_marked(tmp_path: Path) -> None:
    made = [candidate(latency, score) for latency, score in ((10, 5.0), (20, 4.0), (30, 4.5), (40, 3.0))]
    automoe = SearchName("automoe", "evolution", "whole")
    other = SearchName("random", "random", "whole")
    check = SearchName("feasibility", "feasibility", "whole")
    entries = [LogEntry(automoe, 0, i, c, feasible=True) for i, c in enumerate(made[:3])]
    entries += [LogEntry(other, 0, 0, made[3], feasible=True)]
    entries += [LogEntry(other, 0, 1, candidate(90, 2.0), feasible=False)]
    entries += [LogEntry(check, 0, 0, candidate(15, None), feasible=True)]
    entries += [LogEntry(automoe, 0, 3, Candidate(dense(8, 8, 8, 1, 1), {}, 1.0), feasible=True)]

    figure = pictures.candidates(
        entries, "memory_bytes", tmp_path / "c.png",
        front=front(made, "memory_bytes"), chosen=made[1], baselines={"dense": candidate(70, 3.5)},
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


def test_a_search_without_any_scored_candidate(tmp_path: Path) -> None:
    figure = pictures.candidates([], "latency_ms", tmp_path / "c.png", front=())
    assert not artists(figure, "system:")
    assert (tmp_path / "c.png").stat().st_size > 1000
