"""Claims about propagated moments; sampled truths come from a seeded generator."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwquant.float_graph import (
    FloatActivation,
    FloatAdd,
    FloatAveragePool,
    FloatConcat,
    FloatConv,
    FloatGraph,
    FloatMaxPool,
    FloatMultiply,
    FloatNode,
    FloatShortcut,
    Gelu,
    HardSigmoid,
    Moments,
    Relu,
    Silu,
)
from hwquant.functions import bounds, evaluate
from hwquant.ir import INPUT, FloatArray
from hwquant.moments import Spread, spreads, tap_correlation
from hwquant.onnx_import import load

MEAN, STD = np.array([-1.0, 0.2, 3.0]), np.array([0.5, 2.0, 1.0])
PIXELS = Spread(MEAN, STD)


def _conv(weight: FloatArray, moments: Moments | None = None) -> FloatConv:
    return FloatConv("c", INPUT, weight, np.ones(len(weight)), (1, 1), (0, 0, 0, 0), moments)


def _after(*nodes: FloatNode) -> Spread:
    graph = FloatGraph("net", "0" * 64, "NCHW", nodes, {INPUT: (3, 8, 8)}, nodes[-1].name)
    return spreads(graph, PIXELS)[nodes[-1].name]


@pytest.mark.parametrize("ceiling", [None, 6.0, 1.0])
def test_rectified_moments_agree_with_samples(ceiling: float | None) -> None:
    spread = _after(FloatActivation("r", INPUT, Relu(ceiling)))
    samples = np.random.default_rng(1).normal(MEAN, STD, (400_000, 3)).clip(0, ceiling)
    np.testing.assert_allclose(spread.clipped().mean, samples.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(spread.clipped().std, samples.std(axis=0), atol=0.01)


@pytest.mark.parametrize("function", [Silu(), Gelu(is_tanh=False), HardSigmoid(0.2, 0.5)])
def test_moments_behind_a_function_agree_with_samples(function: Silu | Gelu | HardSigmoid) -> None:
    spread = _after(FloatActivation("f", INPUT, function))
    samples = evaluate(function, np.random.default_rng(1).normal(MEAN, STD, (400_000, 3)))
    np.testing.assert_allclose(spread.mean, samples.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(spread.std, samples.std(axis=0), atol=0.01)
    assert (spread.low, spread.high) == bounds(function)


def test_grouped_convolution_moves_the_mean_exactly() -> None:
    weight = np.random.default_rng(2).normal(size=(6, 1, 3, 3))
    grouped = replace(_conv(weight), groups=3)
    found = _after(FloatActivation("r", INPUT, Relu(None)), replace(grouped, source="r"))
    relu = Spread(MEAN, STD, low=0.0).clipped()
    np.testing.assert_allclose(found.mean, weight.sum(axis=(1, 2, 3)) * relu.mean.repeat(2) + 1)
    assert (found.std > 0).all()


def test_concat_keeps_each_tensors_moments() -> None:
    spread = _after(FloatActivation("r", INPUT, Relu(None)), FloatConcat("c", (INPUT, "r")))
    relu = Spread(MEAN, STD, low=0.0).clipped()
    np.testing.assert_allclose(spread.clipped().mean, [*MEAN, *relu.mean], atol=1e-9)
    np.testing.assert_allclose(spread.clipped().std, [*STD, *relu.std], atol=1e-9)


def test_product_of_independent_tensors_agrees_with_samples() -> None:
    gate = FloatActivation("g", INPUT, HardSigmoid(0.2, 0.5))
    # the gate's bounds are taken into account twice: by the function, and by the clipped Gaussian
    spread = _after(gate, FloatMultiply("m", INPUT, "g"))
    one, other = np.random.default_rng(1).normal(MEAN, STD, (2, 400_000, 3))
    samples = one * evaluate(HardSigmoid(0.2, 0.5), other)
    np.testing.assert_allclose(spread.mean, samples.mean(axis=0), rtol=0.05)
    np.testing.assert_allclose(spread.std, samples.std(axis=0), rtol=0.05)


def test_clipping_nothing_changes_nothing() -> None:
    np.testing.assert_allclose(PIXELS.clipped().mean, MEAN, atol=1e-9)
    np.testing.assert_allclose(PIXELS.clipped().std, STD, atol=1e-9)


def test_a_constant_channel_has_no_spread() -> None:
    moments = Spread(np.array([2.0, -2.0]), np.zeros(2), low=0.0).clipped()
    np.testing.assert_allclose(moments.mean, [2, 0], atol=1e-9)
    np.testing.assert_allclose(moments.std, [0, 0], atol=1e-6)


def test_stored_moments_win_over_propagated_ones() -> None:
    stored = Moments(np.array([7.0]), np.array([0.25]))
    assert _after(_conv(np.ones((1, 3, 1, 1)), stored)).mean == [7.0]


def test_convolution_moves_the_mean_exactly() -> None:
    weight = np.random.default_rng(2).normal(size=(2, 3, 3, 3))
    want = weight.sum(axis=(2, 3)) @ MEAN + 1
    np.testing.assert_allclose(_after(_conv(weight)).mean, want)


def test_equal_taps_gain_more_than_opposite_ones() -> None:
    """Neighbouring pixels are alike: a blur keeps their variance and a difference loses it."""
    blur, edge = np.full((1, 3, 1, 2), 0.5), np.full((1, 3, 1, 2), 0.5)
    edge[..., 1] *= -1
    assert _after(_conv(blur)).std > 2 * _after(_conv(edge)).std


def test_shortcut_moves_channels_among_zeros() -> None:
    spread = _after(FloatShortcut("s", INPUT, (2, 2), 7, 2))
    np.testing.assert_allclose(spread.mean, [0, 0, *MEAN, 0, 0], atol=1e-9)
    np.testing.assert_allclose(spread.std, [0, 0, *STD, 0, 0], atol=1e-9)


def test_sum_adds_means_and_at_least_variances() -> None:
    spread = _after(FloatActivation("r", INPUT, Relu(None)), FloatAdd("a", ("r", INPUT)))
    relu = Spread(MEAN, STD, low=0.0).clipped()
    np.testing.assert_allclose(spread.mean, relu.mean + MEAN)
    assert (spread.std >= np.hypot(relu.std, STD)).all()
    assert (spread.std <= relu.std + STD).all()


def test_average_pool_keeps_the_mean_and_narrows_the_spread() -> None:
    spread = _after(FloatAveragePool("p", INPUT, (4, 4), (4, 4)))
    np.testing.assert_allclose(spread.mean, MEAN)
    assert (spread.std < STD).all()


def test_max_pool_moves_up_by_less_than_independent_pixels_would() -> None:
    shift = (_after(FloatMaxPool("p", INPUT, (2, 2), (2, 2), (0, 0, 0, 0))).mean - MEAN) / STD
    assert ((shift > 0.2) & (shift < 1.03)).all()  # 1.03: four independent normals


def test_correlation_of_a_window_is_one_on_the_diagonal_and_symmetric() -> None:
    matrix = tap_correlation((2, 3), 0.5)
    np.testing.assert_array_equal(np.diag(matrix), np.ones(6))
    np.testing.assert_array_equal(matrix, matrix.T)
    assert matrix[0, 1] == matrix[0, 3] == 0.5


def test_propagation_agrees_with_the_batch_norms_of_resnet20(shared: Path) -> None:
    """One layer ahead from stored moments: mean within 0.25 std, std within 30 % on average."""
    graph = load(shared / "models" / "resnet20_cifar10.onnx")
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    stored = spreads(graph, Spread((127.5 - mean) / std, 255 / std / 12**0.5))
    shifts, ratios = list[float](), list[float]()
    for conv in [n for n in graph.nodes if isinstance(n, FloatConv) and n.moments is not None]:
        if conv.source == INPUT:
            continue
        found, truth = _one_ahead(conv, stored[conv.source]), stored[conv.name]
        shifts.append(float(np.sqrt(np.mean(((found.mean - truth.mean) / truth.std) ** 2))))
        ratios.append(float(np.mean(np.log(found.std / truth.std))))
    assert np.mean(shifts) < 0.25
    assert abs(np.mean(ratios)) < 0.3


def _one_ahead(conv: FloatConv, source: Spread) -> Spread:
    """Propagate through ``conv`` as an inner layer: behind a ReLU of the source's Gaussian."""
    inner = replace(conv, source="relu", moments=None)
    nodes = (FloatActivation("relu", INPUT, Relu(None)), inner)
    graph = FloatGraph("one", "0" * 64, "NCHW", nodes, {INPUT: (3, 8, 8)}, inner.name)
    return spreads(graph, source)[inner.name]
