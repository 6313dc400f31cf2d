"""Moments of weights are those of textbooks, and the quantizer keeps them of what it quantized."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats  # pyright: ignore[reportMissingTypeStubs]

from hwquant.errors import BadInput
from hwquant.ir import WeightStatistics
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.equalize import equalize
from hwquant.quantizer.lower import FloatMac, lower
from hwquant.quantizer.quantize import quantize
from hwquant.quantizer.statistics import describe, weight_statistics
from tests.float_graphs import NETWORKS, graph


def test_moments_are_those_worked_out_by_hand() -> None:
    assert describe("a", np.array([[-2.0, 2.0]])) == WeightStatistics("a", 2, 2.0, 0.0, 1.0)
    # mean 1, variance (3 * 1 + 9) / 4 = 3, third moment (-3 + 27) / 4 = 6, fourth (3 + 81) / 4 = 21
    found = describe("a", np.array([0.0, 0.0, 4.0, 0.0]))
    assert found == WeightStatistics("a", 4, 1.73205, 1.1547, 2.33333)


@pytest.mark.parametrize("seed", range(5))
def test_moments_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.gamma(rng.uniform(0.5, 5), 0.1, (7, 3, 3, 3)) - 0.2
    row = weight.ravel()
    moments = (row.std(), stats.skew(row), stats.kurtosis(row, fisher=False))
    wanted = [float(f"{float(moment):.6g}") for moment in moments]
    found = describe("a", weight)
    assert [found.deviation, found.skewness, found.kurtosis] == wanted, f"seed {seed}"


def test_scale_moves_the_deviation_alone_and_sign_the_skewness_alone() -> None:
    weight = np.random.default_rng(1).gamma(2.0, 1.0, (8, 4, 3, 3))
    found, scaled, turned = (describe("a", factor * weight) for factor in (1.0, 4.0, -1.0))
    assert scaled == replace(found, deviation=float(f"{4 * weight.std():.6g}"))
    assert turned == replace(found, skewness=-found.skewness)


def test_weights_all_alike_have_no_statistics() -> None:
    with pytest.raises(BadInput, match=r"a: deviation=0.0 of weights; permitted more than 0"):
        describe("a", np.full((2, 3), 0.25))
    layers = lower(graph(*NETWORKS["sum of pools"]))
    alike = {m.name for m in layers if isinstance(m, FloatMac) and np.ptp(m.weight) == 0}
    assert alike
    described = [found.layer for found in weight_statistics(layers)]
    assert described == [m.name for m in layers if isinstance(m, FloatMac) and m.name not in alike]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"count": 1}, "count=1 of weights; permitted 2 and up"),
        ({"deviation": 0.0}, "deviation=0.0 of weights; permitted more than 0"),
        ({"skewness": float("nan")}, "skewness=nan of weights; permitted a finite number"),
        ({"kurtosis": 0.9}, "kurtosis=0.9 of weights; permitted 1 and up"),
        ({"kurtosis": float("inf")}, "kurtosis=inf"),
    ],
)
def test_moments_that_no_weights_have_are_refused(changed: dict[str, float], words: str) -> None:
    with pytest.raises(BadInput, match=f"conv: {words}"):
        replace(WeightStatistics("conv", 9, 1.0, 0.0, 3.0), **changed)


@pytest.mark.parametrize("is_equalized", [False, True])
def test_quantize_keeps_the_statistics_of_the_weights_it_quantized(is_equalized: bool) -> None:
    floating = graph(*NETWORKS["two convolutions"])
    config = QuantConfig(equalize=is_equalized, rounding="nearest")
    seen = lower(equalize(floating) if is_equalized else floating)
    macs = [layer for layer in seen if isinstance(layer, FloatMac)]
    kept = quantize(floating, config).provenance
    assert kept.weights == tuple(describe(mac.name, mac.weight) for mac in macs)
    assert (kept.equalize, kept.rounding) == (is_equalized, "nearest")
