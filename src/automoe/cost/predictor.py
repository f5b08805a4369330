"""A latency predictor learned from whole-model measurements, for devices that cannot be profiled in parts.

The table is HAT's (Wang et al., ACL 2020): one row per measured architecture, with per-layer values
averaged. The model is a linear regression of the latency on physical terms (layer counts times widths,
FFN sizes, heads, attended lengths) that minimises the mean absolute *percentage* error, which is median
regression weighted by 1 / latency. Devices heat up, throttle and serve others while a table is measured,
so some rows are far too slow; a median ignores them where least squares would follow them.

Shapes: R rows, P terms.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat, field_validator

import automoe
from automoe.design.architecture import (
    Architecture,
    AverageAttention,
    CrossAttention,
    FeedForward,
    SelfAttention,
    Ssru,
)
from automoe.design.hat_file import HAT_QKV_DIM
from automoe.errors import InputError
from automoe.storage import bytes_digest, read_bytes, read_model, write_text

FEATURES = (
    "encoder_embed_dim",
    "encoder_layer_num",
    "encoder_ffn_embed_dim_avg",
    "encoder_self_attention_heads_avg",
    "decoder_embed_dim",
    "decoder_layer_num",
    "decoder_ffn_embed_dim_avg",
    "decoder_self_attention_heads_avg",
    "decoder_ende_attention_heads_avg",
    "decoder_arbitrary_ende_attn_avg",  # encoder layers attended
)
LATENCIES = ("latency_mean_encoder", "latency_mean_decoder")
SPREADS = ("latency_std_encoder", "latency_std_decoder")
"""Of the repetitions of a measurement: HAT's tables have them, a median regression has no use for them."""
FEWEST_ROWS = 100
FOLDS = 5

Array = NDArray[np.float64]


class Provenance(BaseModel):
    """Where a predictor came from: the table (name, SHA-256, rows) and the versions that fitted it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    table: str
    table_sha256: str
    rows: int
    automoe_version: str
    scikit_learn_version: str


class PredictorQuality(BaseModel):
    """How well a predictor predicts rows it was not fitted on.

    Attributes:
        training_rows: fitted on, the first 80 % of the table.
        test_rows: the last 10 %.
        test_mape_percent: mean absolute percentage error on the test rows.
        test_kendall_tau: rank correlation (tau-b) there; 0 where a rank does not exist, all being equal.
        cross_validated_mape_percent, cross_validated_kendall_tau: the same within the training rows, in
            five contiguous blocks, each predicted by a fit of the other four. A device's drift from block
            to block counts as error here.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    training_rows: int
    test_rows: int
    test_mape_percent: FiniteFloat
    test_kendall_tau: FiniteFloat
    cross_validated_mape_percent: FiniteFloat
    cross_validated_kendall_tau: FiniteFloat


class LatencyPredictor(BaseModel):
    """latency_ms = `intercept_ms` + the sum of `coefficients_ms` times terms; plain JSON on disk.

    Attributes:
        qkv_dim: of every measured architecture; the table has no column for it.
        feature_ranges: smallest and largest value of each feature among the training rows.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: Literal["automoe latency predictor 1"]
    provenance: Provenance
    quality: PredictorQuality
    qkv_dim: int
    feature_ranges: dict[str, tuple[FiniteFloat, FiniteFloat]]
    intercept_ms: FiniteFloat
    coefficients_ms: dict[str, FiniteFloat]

    @field_validator("feature_ranges")
    @classmethod
    def _has_every_feature(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _with_keys(value, FEATURES)

    @field_validator("coefficients_ms")
    @classmethod
    def _has_every_term(cls, value: dict[str, float]) -> dict[str, float]:
        return _with_keys(value, tuple(_terms(dict.fromkeys(FEATURES, 1.0))))

    def predict(self, architecture: Architecture) -> float:
        """The latency in ms on the table's device, under the conditions it was measured in.

        Raises:
            InputError: the architecture has a feature outside the fitted range, a layer with several
                experts or without self-attention (the table describes neither), or another `qkv_dim`.
        """
        problems = [
            f"{layer.stack}[{layer.index}].experts: {count} experts, but the table describes one FFN a layer"
            for layer in architecture.layers()
            if (count := len(layer.feed_forward.experts)) != 1
        ]
        problems += [
            f"decoder[{index}].mixer: {layer.mixer}, but the table describes self-attention alone"
            for index, layer in enumerate(architecture.decoder)
            if layer.mixer != "self_attention"
        ]
        if architecture.qkv_dim != self.qkv_dim:
            problems.append(f"qkv_dim: {architecture.qkv_dim}, fitted at {self.qkv_dim}")
        features = features_of(architecture)
        for name, value in features.items():
            low, high = self.feature_ranges[name]
            # The table's averages were rounded by another program.
            slack = 1e-9 * high
            if not low - slack <= value <= high + slack:
                problems.append(f"{name}: {value:g} is outside the fitted range {low:g} to {high:g}")
        if problems:
            summary = f"the latency of {architecture} cannot be predicted from {self.provenance.table}"
            raise InputError(summary, problems)
        terms = _terms(features)
        return float(self.intercept_ms + sum(self.coefficients_ms[name] * terms[name] for name in terms))

    def save(self, path: str | Path) -> None:
        """Write JSON that `load_predictor` reads back to the same predictions; complete or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        write_text(path, self.model_dump_json(indent=2) + "\n")


def load_predictor(path: str | Path) -> LatencyPredictor:
    """Read what `LatencyPredictor.save` wrote.

    Raises:
        InputError: the file is missing, damaged, or something else.
    """
    summary = "is not a latency predictor; make it again with `automoe predictor fit`"
    return read_model(path, LatencyPredictor, summary)


def fit_predictor(table: str | Path, *, qkv_dim: int = HAT_QKV_DIM) -> LatencyPredictor:
    """Fit the first 80 % of a table's rows and judge the fit on the last 10 %.

    Args:
        table: CSV with the columns `FEATURES` and `LATENCIES` (ms), in any order; it may have `SPREADS`, and
            no other: one that is not understood may be what a latency depends on. Rows in the order of
            measuring.
        qkv_dim: of the measured architectures.

    Raises:
        InputError: the table cannot be read, has other columns or one twice, lacks columns or rows, or has
            cells that are not positive numbers; lists every one.
    """
    import sklearn
    from sklearn.model_selection import KFold

    content = read_bytes(table)
    columns = _columns(table, content)
    latency_R = columns[LATENCIES[0]] + columns[LATENCIES[1]]
    terms = _terms(columns)
    terms_RP = np.stack(list(terms.values()), axis=1)
    rows = len(latency_R)
    training, test = slice(0, rows * 8 // 10), slice(rows - rows // 10, rows)

    training_RP, training_R = terms_RP[training], latency_R[training]
    held_out_R = np.empty_like(training_R)
    for others, block in KFold(FOLDS).split(training_RP):
        intercept, coefficients_P = _fit(training_RP[others], training_R[others])
        held_out_R[block] = intercept + training_RP[block] @ coefficients_P
    intercept, coefficients_P = _fit(training_RP, training_R)
    predicted_R = intercept + terms_RP[test] @ coefficients_P

    return LatencyPredictor(
        format="automoe latency predictor 1",
        provenance=Provenance(
            table=Path(table).name,
            table_sha256=bytes_digest(content),
            rows=rows,
            automoe_version=automoe.__version__,
            scikit_learn_version=sklearn.__version__,
        ),
        quality=PredictorQuality(
            training_rows=len(training_R),
            test_rows=len(predicted_R),
            test_mape_percent=_mape_percent(latency_R[test], predicted_R),
            test_kendall_tau=_kendall_tau(latency_R[test], predicted_R),
            cross_validated_mape_percent=_mape_percent(training_R, held_out_R),
            cross_validated_kendall_tau=_kendall_tau(training_R, held_out_R),
        ),
        qkv_dim=qkv_dim,
        feature_ranges={
            name: (float(columns[name][training].min()), float(columns[name][training].max()))
            for name in FEATURES
        },
        intercept_ms=intercept,
        coefficients_ms=dict(zip(terms, coefficients_P.tolist(), strict=True)),
    )


def features_of(architecture: Architecture) -> dict[str, float]:
    """The table's features of an architecture; a layer's FFN size is the sum over its experts.

    Heads are a mean over the layers that have them, 0 where none has.
    """
    features: dict[str, float] = {
        "encoder_embed_dim": architecture.encoder_width,
        "encoder_layer_num": len(architecture.encoder),
        "decoder_embed_dim": architecture.decoder_width,
        "decoder_layer_num": len(architecture.decoder),
    }
    by_layer: defaultdict[str, list[int]] = defaultdict(list)
    for layer in architecture.layers():
        for sublayer in layer.sublayers:
            match sublayer:
                case SelfAttention(heads):
                    by_layer[f"{layer.stack}_self_attention_heads_avg"].append(heads)
                case AverageAttention() | Ssru():
                    pass
                case CrossAttention(heads, attended):
                    by_layer["decoder_ende_attention_heads_avg"].append(heads)
                    by_layer["decoder_arbitrary_ende_attn_avg"].append(attended)
                case FeedForward():
                    by_layer[f"{layer.stack}_ffn_embed_dim_avg"].append(sum(sublayer.ffn_sizes))
                case _:
                    assert_never(sublayer)
    features |= {name: fmean(values) for name, values in by_layer.items()}
    return {name: float(features.get(name, 0)) for name in FEATURES}


def _terms(features: Mapping[str, Any]) -> dict[str, Any]:
    """What the latency is linear in, of one architecture (floats) or of a table (arrays).

    A layer takes a fixed time (its calls), and times proportional to its projections (width), its FFN
    (width x size), its activations (size), its softmaxes (heads) and the keys that it attends to.
    """
    e_width, e_layers, e_ffn, e_heads, width, layers, ffn, heads, cross_heads, attended = (
        features[name] for name in FEATURES
    )
    return {
        "encoder_layers": e_layers,
        "encoder_layers*width": e_layers * e_width,
        "encoder_layers*ffn": e_layers * e_ffn,
        "encoder_layers*width*ffn": e_layers * e_width * e_ffn,
        "encoder_layers*heads": e_layers * e_heads,
        "decoder_width": width,  # the output layer
        "decoder_layers": layers,
        "decoder_layers*width": layers * width,
        "decoder_layers*ffn": layers * ffn,
        "decoder_layers*width*ffn": layers * width * ffn,
        "decoder_layers*heads": layers * heads,
        "decoder_layers*cross_heads": layers * cross_heads,
        "decoder_layers*attended": layers * attended,
        "decoder_layers*attended*encoder_width": layers * attended * e_width,
        "decoder_layers*attended*cross_heads": layers * attended * cross_heads,
    }


def _fit(terms_RP: Array, latency_R: Array) -> tuple[float, Array]:
    """Intercept and coefficients with the least mean absolute percentage error (a linear program)."""
    # Imported here: a search that only predicts need not wait for it.
    from sklearn.linear_model import QuantileRegressor
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(terms_RP)
    model = QuantileRegressor(quantile=0.5, alpha=0.0, solver="highs")
    model.fit(scaler.transform(terms_RP), latency_R, sample_weight=1 / latency_R)
    coefficients_P = model.coef_ / scaler.scale_
    return float(model.intercept_ - scaler.mean_ @ coefficients_P), coefficients_P


def _mape_percent(measured_R: Array, predicted_R: Array) -> float:
    return float(100 * np.mean(np.abs(predicted_R / measured_R - 1)))


def _kendall_tau(measured_R: Array, predicted_R: Array) -> float:
    from scipy.stats import kendalltau

    tau = float(kendalltau(measured_R, predicted_R).statistic)
    return 0.0 if math.isnan(tau) else tau


def _with_keys(value: dict[str, Any], expected: tuple[str, ...]) -> dict[str, Any]:
    if set(value) != set(expected):
        raise ValueError(f"expected exactly the keys {', '.join(expected)}")
    return value


def _columns(table: str | Path, content: bytes) -> dict[str, Array]:
    """The columns in use, checked cell by cell."""
    try:
        first, *lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: is not a CSV table", [str(error)]) from error
    header = [name.strip() for name in first]
    needed = (*FEATURES, *LATENCIES)
    problems = [f"column {name}: missing" for name in needed if name not in header]
    problems += [f"column {name}: is there twice" for name in sorted(set(header)) if header.count(name) > 1]
    if unknown := [name for name in dict.fromkeys(header) if name not in (*needed, *SPREADS)]:
        problems += [f"column {name!r}: unknown" for name in unknown]
        problems.append(f"known columns: {', '.join((*needed, *SPREADS))}")
    present = [name for name in needed if name in header]
    values: dict[str, list[float]] = {name: [] for name in present}
    rows = 0
    for number, cells in enumerate(lines, start=2):
        if not cells:  # a blank line
            continue
        rows += 1
        if len(cells) != len(header):
            problems.append(f"line {number}: {len(cells)} cells, but the header has {len(header)}")
            continue
        for name in present:
            cell = cells[header.index(name)]
            value = _number(cell)
            if value is None or value <= 0:
                problems.append(f"line {number}, {name}: expected a positive number, got {cell!r}")
            else:
                values[name].append(value)
    if rows < FEWEST_ROWS:
        problems.append(f"{rows} rows: expected at least {FEWEST_ROWS} measured architectures")
    if problems:
        raise InputError(f"{table}: is not a usable latency table", problems)
    return {name: np.array(column) for name, column in values.items()}


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
