"""Claims about the quantizer, on hand-made networks with golden as the executor."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwquant import golden
from hwquant.errors import BadInput
from hwquant.float_graph import FloatConv, FloatGraph, Moments
from hwquant.importer.load import load
from hwquant.ir import (
    INPUT,
    ConcatLayer,
    FloatArray,
    IntArray,
    LevelTables,
    MacLayer,
    ProductTable,
    QuantGraph,
)
from hwquant.quantizer import synthetic
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.exponent import HIGHEST, LOWEST, Search
from hwquant.quantizer.quantize import exponent_errors, quantize
from hwquant.quantizer.requantize import Kernel, encode_weights
from tests.float_graphs import NETWORKS, SHAPE, graph
from tests.float_model import evaluate

FINE = QuantConfig(weight_bits=8, act_bits=8, std=(64.0,))
COARSE = replace(FINE, weight_bits=4, act_bits=4)


def _images(count: int = 6, low: int = 0, high: int = 256) -> IntArray:
    return np.random.default_rng(5).integers(low, high, (count, *SHAPE)).astype(np.int64)


def _scaled(values: IntArray | FloatArray, truth: FloatArray) -> FloatArray:
    """Give the last layer's values the truth's unit, by least squares."""
    real = values.astype(np.float64)
    return real * (float((real * truth).sum()) / float((real * real).sum()))


def _error(floating: FloatGraph, config: QuantConfig, images: IntArray) -> float:
    """Distance from the float network, over the spread of its outputs."""
    mean, std = np.array(config.mean), np.array(config.std)
    real = (images - mean.reshape(-1, 1, 1)) / std.reshape(-1, 1, 1)
    truth = evaluate(floating, real)
    found = _scaled(golden.simulate(quantize(floating, config), images), truth)
    return float(np.sqrt(((found - truth) ** 2).mean()) / truth.std())


def _assert_same(one: QuantGraph, other: QuantGraph) -> None:
    """Assert that two networks compute with the same integers."""
    np.testing.assert_array_equal(one.input.tables, other.input.tables)
    for a, b in zip(one.layers, other.layers, strict=True):
        np.testing.assert_array_equal(a.output.pad_code, b.output.pad_code)
        if isinstance(a, MacLayer) and isinstance(b, MacLayer):
            np.testing.assert_array_equal(a.weights, b.weights)
            np.testing.assert_array_equal(a.bias, b.bias)
            np.testing.assert_array_equal(a.multiplier, b.multiplier)
            assert (a.activation, a.shift) == (b.activation, b.shift)
            assert (a.acc_bits, a.value_bits) == (b.acc_bits, b.value_bits)


@pytest.mark.parametrize("name", NETWORKS)
def test_eight_bits_follow_the_float_network(name: str) -> None:
    assert _error(graph(*NETWORKS[name]), FINE, _images()) < 0.05


@pytest.mark.parametrize("name", NETWORKS)
def test_four_bits_follow_the_float_network_from_afar(name: str) -> None:
    assert _error(graph(*NETWORKS[name]), COARSE, _images()) < 0.2


BASELINES: dict[str, dict[str, Any]] = {
    "squant": {"rounding": "squant"},
    "equalize": {"equalize": True},
    "omse": {"ranges": "omse"},
    "norm": {"search": "weights", "norm": 4.0},
    "all": {"rounding": "squant", "equalize": True, "ranges": "omse", "method": "uniform"},
}


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("name", ["residual", "depthwise", "dense", "squeeze and excite", "silu"])
def test_baselines_follow_the_float_network(name: str, baseline: str) -> None:
    for config, farthest in ((FINE, 0.05), (COARSE, 0.25)):
        changed = replace(config, **BASELINES[baseline])
        assert _error(graph(*NETWORKS[name]), changed, _images()) < farthest


@pytest.mark.parametrize("baseline", ["squant", "equalize", "omse"])
def test_baselines_change_the_integers(baseline: str) -> None:
    floating = graph(*NETWORKS["linear between"])
    with pytest.raises(AssertionError):
        _assert_same(
            quantize(floating, COARSE), quantize(floating, replace(COARSE, **BASELINES[baseline]))
        )


def test_accumulator_bound_is_reached_by_the_worst_image() -> None:
    config = replace(FINE, weight_bits=4, act_bits=8, method="uniform")
    weight = np.full((1, 3, 8, 8), 0.5)
    conv = FloatConv("only", INPUT, weight, np.zeros(1), (1, 1), (0, 0, 0, 0), None)
    quantized = quantize(graph(conv), config)
    layer = quantized.layers[0]
    assert isinstance(layer, MacLayer)
    places = 2 ** (quantized.part_shift * np.arange(layer.weights.shape[0])[::-1])
    worst = 255 * int(np.tensordot(places, layer.weights, 1).sum())
    assert worst.bit_length() + 1 == layer.acc_bits


@pytest.mark.parametrize("name", ["residual", "two convolutions", "relu6", "concat", "silu"])
def test_power_with_exponent_one_computes_what_uniform_computes(name: str) -> None:
    """Codes are the same; multipliers are not, as the power's levels have more bits."""
    config = replace(COARSE, accumulate="levels", exponent=1.0, bias_correction=False)
    power, uniform = (
        quantize(graph(*NETWORKS[name]), replace(config, method=method))
        for method in ("power", "uniform")
    )
    np.testing.assert_array_equal(power.input.tables, uniform.input.tables)
    for a, b in zip(power.layers, uniform.layers, strict=True):
        np.testing.assert_array_equal(a.output.pad_code, b.output.pad_code)
        if isinstance(a, MacLayer) and isinstance(b, MacLayer):
            np.testing.assert_array_equal(a.weights, b.weights)
            assert a.activation == b.activation


def test_channel_of_zeros_is_its_bias_exactly() -> None:
    stem, relu, last = NETWORKS["plain"]
    assert isinstance(last, FloatConv)
    weight = last.weight.copy()
    weight[2] = 0
    quantized = quantize(graph(stem, relu, replace(last, weight=weight)), COARSE)
    layer = quantized.layers[-1]
    assert isinstance(layer, MacLayer)
    half = (1 << layer.shift) >> 1
    values = golden.simulate(quantized, _images())[:, 2]
    np.testing.assert_array_equal(values, (int(layer.bias[2]) + half) >> layer.shift)


@pytest.mark.parametrize("name", ["residual", "squeeze and excite", "concat of different zeros"])
def test_network_of_zeros_computes_zeros(name: str) -> None:
    nodes = [
        replace(node, weight=0 * node.weight, bias=0 * node.bias)
        if isinstance(node, FloatConv)
        else node
        for node in NETWORKS[name]
    ]
    values = golden.simulate(quantize(graph(*nodes), QuantConfig()), _images(1))
    np.testing.assert_array_equal(values, np.zeros_like(values))


@pytest.mark.parametrize("name", ["residual", "squeeze and excite", "dense"])
def test_quantizing_twice_gives_the_same_integers(name: str) -> None:
    one, two = (quantize(graph(*NETWORKS[name]), QuantConfig()) for _ in range(2))
    _assert_same(one, two)


def test_layers_are_fused() -> None:
    layers = quantize(graph(*NETWORKS["residual"]), QuantConfig()).layers
    assert [layer.name for layer in layers] == ["stem", "c1", "c2", "mean", "fc"]
    add, pool = layers[2], layers[3]
    assert isinstance(add, MacLayer)
    assert add.residual is not None
    assert add.residual.source == "stem"
    assert isinstance(pool, MacLayer)
    assert (pool.kernel, pool.shared, pool.weights.shape[3:]) == ((8, 8), True, (1, 1))


def test_strided_shortcut_is_read_by_the_residual() -> None:
    _, copy, layer, _ = quantize(graph(*NETWORKS["shortcut"]), QuantConfig()).layers
    assert isinstance(layer, MacLayer)
    assert layer.residual is not None
    residual = layer.residual
    assert (residual.source, residual.stride, residual.channel_offset) == (copy.name, (2, 2), 2)
    np.testing.assert_array_equal(residual.multiplier[[0, 1, 10, 11]], 0)
    assert (residual.multiplier[2:10] > 0).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_concatenated_tensors_keep_their_own_padding(name: str) -> None:
    quantized = quantize(graph(*NETWORKS[name]), QuantConfig())
    for layer in quantized.layers:
        if isinstance(layer, ConcatLayer):
            pads = [quantized.tensor(source).pad_code for source in layer.sources]
            np.testing.assert_array_equal(layer.output.pad_code, np.concatenate(pads))


def test_multipliers_fit_sixteen_bits_and_use_them() -> None:
    for layer in quantize(graph(*NETWORKS["residual"]), QuantConfig()).layers:
        assert isinstance(layer, MacLayer)
        skip = [] if layer.residual is None else [int(layer.residual.multiplier.max())]
        largest = max(int(layer.multiplier.max()), *skip, 0)
        assert 2**15 <= largest < 2**16 or layer.shift == 40


def test_padding_is_the_code_of_real_zero() -> None:
    config = QuantConfig(mean=(0.0, 100.0, 255.0), std=(50.0,), act_bits=8)
    made = quantize(graph(*NETWORKS["plain"]), config).input
    np.testing.assert_array_equal(made.tensor.pad_code, made.tables[0, [0, 100, 255]])


def test_input_table_grows_with_the_pixel() -> None:
    (table,) = quantize(graph(*NETWORKS["plain"]), QuantConfig()).input.tables
    assert table.shape == (256,)
    assert (np.diff(table) >= 0).all()
    assert table[0] == 0
    assert table[-1] == 255


def test_signed_sensor_counts_from_below_zero() -> None:
    config = replace(FINE, input_signed=True, input_bits=6, std=(16.0,))
    floating = graph(*NETWORKS["plain"])
    assert quantize(floating, config).input.low == -32
    assert _error(floating, config, _images(6, -32, 32)) < 0.05


@pytest.mark.parametrize("name", ["one layer", "residual", "silu", "squeeze and excite", "concat"])
def test_bias_correction_brings_means_back(name: str) -> None:
    """Golden's mean outputs on the synthetic images are those of the float network, in its unit."""
    floating = graph(*NETWORKS[name])
    pixels = np.round(255 * synthetic.images(*SHAPE)).astype(np.int64)
    truth = evaluate(floating, pixels / 64.0)
    lost = list[float]()
    for correct in (True, False):
        config = replace(COARSE, weight_bits=3, act_bits=3, bias_correction=correct)
        values = golden.simulate(quantize(floating, config), pixels).mean(axis=(0, 2, 3))
        means = truth.mean(axis=(0, 2, 3))
        lost.append(float(np.abs(_scaled(values, means) - means).max() / truth.std()))
    assert lost[0] < lost[1] / 2
    assert lost[0] < 0.04


@pytest.mark.parametrize("name", ["plain", "residual", "silu", "squeeze and excite", "concat"])
def test_variance_correction_restores_weights_that_came_out_small(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    floating = graph(*NETWORKS[name])
    configs = COARSE, replace(COARSE, variance_correction=False)
    before = [_first_factors(floating, config) for config in configs]

    def shrunk(*arguments: Any) -> Kernel:
        return encode_weights(*arguments).scaled(0.7)

    monkeypatch.setattr("hwquant.quantizer.quantize.encode_weights", shrunk)
    after = [_first_factors(floating, config) for config in configs]
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_allclose(after[1], 0.7 * before[1], rtol=2**-15)


def _first_factors(floating: FloatGraph, config: QuantConfig) -> FloatArray:
    """By what the sums of the first layer are multiplied, a channel."""
    layer = quantize(floating, config).layers[0]
    assert isinstance(layer, MacLayer)
    return layer.multiplier / 2.0**layer.shift


def test_second_order_rounding_is_closer_to_the_float_network_than_nearest() -> None:
    pixels = np.round(255 * synthetic.images(*SHAPE)[:32]).astype(np.int64)
    total = {"nearest": 0.0, "second_order": 0.0}
    for name in ("plain", "residual", "concat", "grouped", "silu"):
        for rounding in total:
            config = replace(COARSE, rounding=rounding, act_bits=8)  # pyright: ignore[reportArgumentType]
            total[rounding] += _error(graph(*NETWORKS[name]), config, pixels)
    assert total["second_order"] < 0.8 * total["nearest"]


def test_table_of_levels_and_products_agree() -> None:
    floating = graph(*NETWORKS["residual"])
    product = quantize(floating, replace(COARSE, accumulate="product", product_bits=16))
    levels = quantize(floating, replace(COARSE, accumulate="levels"))
    one, two = (golden.simulate(g, _images()) for g in (product, levels))
    assert np.abs(_scaled(one, two.astype(np.float64)) - two).max() < 0.05 * two.std()


@pytest.mark.parametrize(
    ("weight_bits", "kind"), [(4, ProductTable), (6, ProductTable), (8, LevelTables)]
)
def test_small_codes_are_multiplied_by_table(weight_bits: int, kind: type) -> None:
    config = QuantConfig(weight_bits=weight_bits, act_bits=4)
    assert isinstance(quantize(graph(*NETWORKS["plain"]), config).arithmetic, kind)


def test_stored_moments_set_the_range() -> None:
    stem, relu, last = NETWORKS["plain"]
    assert isinstance(stem, FloatConv)
    tops = list[int]()
    for std in (100.0, 0.01):
        moments = Moments(np.zeros(8), np.full(8, std))
        quantized = quantize(graph(replace(stem, moments=moments), relu, last), FINE)
        tops.append(int(golden.trace(quantized, _images(1)[0])["stem"].max()))
    assert tops[0] < 100
    assert tops[1] == 255


@pytest.mark.parametrize("search", ["weights", "both", "separate"])
def test_chosen_exponents_are_in_the_provenance_and_least_of_a_sweep(search: Search) -> None:
    floating = graph(*NETWORKS["residual"])
    config = replace(COARSE, search=search, levels="rounded")
    chosen = quantize(floating, config).provenance
    sweep = {a: exponent_errors(floating, config, a) for a in np.linspace(LOWEST, HIGHEST, 16)}
    of_weights = exponent_errors(floating, config, chosen.exponent)
    of_acts = exponent_errors(floating, config, chosen.act_exponent)
    match search:
        case "weights":
            found = [(of_weights["weight error"], [e["weight error"] for e in sweep.values()])]
        case "both":
            found = [(of_weights["both noises"], [e["both noises"] for e in sweep.values()])]
        case "separate":
            found = [
                (of_weights["weight noise"], [e["weight noise"] for e in sweep.values()]),
                (of_acts["act noise"], [e["act noise"] for e in sweep.values()]),
            ]
    for error, others in found:
        assert error <= 1.01 * min(others)
    assert (chosen.exponent == chosen.act_exponent) == (search != "separate")


def test_given_exponent_is_that_of_weights_and_activations() -> None:
    chosen = quantize(graph(*NETWORKS["plain"]), QuantConfig(exponent=0.6)).provenance
    assert (chosen.exponent, chosen.act_exponent) == (0.6, 0.6)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("weight_bits", 1, "2..8"),
        ("act_bits", 9, "2..8"),
        ("edge_bits", 3, "4..8"),
        ("product_bits", 3, "4..16"),
        ("input_bits", 0, "1..16"),
        ("method", "pot", "power, uniform, log"),
        ("search", "grid", "weights, both, separate, auto"),
        ("rounding", "random", "nearest, second_order, squant"),
        ("ranges", "mse", "reach, omse"),
        ("extra_macs", -0.1, "0..3"),
        ("extra_macs", float("nan"), "0..3"),
        ("norm", 0.5, "1..inf"),
        ("norm", float("nan"), "1..inf"),
        ("norm", 4.0, "search=weights"),
        ("accumulate", "shift", "product, levels, auto"),
        ("activation", "spline", "thresholds, table, pade, newton, auto"),
        ("max_code_error", 9, "0..8"),
        ("levels", "real", "whole, rounded, auto"),
        ("exponent", 0.1, "0.25..1.0"),
        ("exponent", float("nan"), "0.25..1.0"),
        ("mean", (), "one number"),
        ("std", (0.0,), "positive"),
    ],
)
def test_configuration_refuses_what_is_out_of_range(field: str, value: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        QuantConfig(**{field: value})
    assert str(refused.value).startswith(f"{field}={value}")


def test_whole_levels_need_as_many_product_bits_as_uniform_ones() -> None:
    assert QuantConfig(product_bits=7).levels_used == "whole"
    assert QuantConfig(product_bits=6).levels_used == "rounded"
    with pytest.raises(BadInput, match=r"product_bits=6: permitted 7\.\.16 with levels=whole"):
        QuantConfig(product_bits=6, levels="whole")


def test_mean_of_another_number_of_channels_is_refused() -> None:
    with pytest.raises(BadInput, match="1 or 3"):
        quantize(graph(*NETWORKS["plain"]), QuantConfig(mean=(1.0, 2.0)))


@pytest.mark.parametrize("name", ["mlperf_ad_autoencoder", "jets_hls4ml_3layer"])
def test_networks_without_data_quantize(shared: Path, name: str) -> None:
    floating = load(shared / "models" / f"{name}.onnx")
    quantized = quantize(floating, QuantConfig())
    channels = floating.shapes[INPUT][0]
    images = np.random.default_rng(1).integers(0, 256, (2, channels, 1, 1))
    assert golden.simulate(quantized, images).any()
