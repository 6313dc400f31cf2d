"""Claims about the quantizer, on hand-made networks with golden as the executor."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwquant import golden
from hwquant.errors import BadInput
from hwquant.exponent import Site, find_exponent, noise_to_signal, weight_error
from hwquant.float_graph import (
    FloatActivation,
    FloatAdd,
    FloatAveragePool,
    FloatConv,
    FloatGraph,
    FloatMaxPool,
    FloatNode,
    FloatShortcut,
    Moments,
    Relu,
)
from hwquant.ir import INPUT, FloatArray, IntArray, LevelTables, MacLayer, ProductTable, QuantGraph
from hwquant.lower import sources
from hwquant.moments import Spread
from hwquant.onnx_import import load
from hwquant.quantize import QuantConfig, quantize
from tests.float_model import evaluate

FINE = QuantConfig(weight_bits=8, act_bits=8, std=(64.0,))
SHAPE: tuple[int, int, int] = (3, 8, 8)


def _conv(
    name: str, source: str, shape: tuple[int, ...], stride: int = 1, seed: int = 0
) -> FloatConv:
    rng = np.random.default_rng(seed + len(name) + shape[0])
    weight = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
    pad, bias = shape[2] // 2, rng.normal(0, 0.2, shape[0])
    return FloatConv(name, source, weight, bias, (stride, stride), (pad, pad, pad, pad), None)


def _graph(*nodes: FloatNode) -> FloatGraph:
    """Make a graph; the shapes are those that the float model computes."""
    shapes: dict[str, tuple[int, int, int]] = {INPUT: SHAPE}
    for node in nodes:
        shapes[node.name] = _shape(node, shapes)
    return FloatGraph("net", "0" * 64, "NCHW", nodes, shapes, nodes[-1].name)


def _shape(node: FloatNode, shapes: dict[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    channels, height, width = shapes[sources(node)[0]]
    match node:
        case FloatConv():
            kernel, pads = node.weight.shape[2:], node.pads
            height, width = height + pads[0] + pads[2], width + pads[1] + pads[3]
            channels = len(node.weight)
        case FloatMaxPool() | FloatAveragePool():
            kernel = node.kernel
        case FloatShortcut():
            kernel, channels = (1, 1), node.channels
        case _:
            return channels, height, width
    down, right = node.stride
    return channels, (height - kernel[0]) // down + 1, (width - kernel[1]) // right + 1


STEM = (_conv("stem", INPUT, (8, 3, 3, 3)), FloatActivation("relu", "stem", Relu(None)))
HEAD = (FloatAveragePool("mean", "body", (8, 8), (1, 1)), _conv("fc", "mean", (5, 8, 1, 1)))
NETWORKS = {
    "plain": (*STEM, _conv("last", "relu", (5, 8, 3, 3))),
    "one layer": (_conv("only", INPUT, (5, 3, 3, 3)),),
    "residual": (
        *STEM,
        _conv("c1", "relu", (8, 8, 3, 3)),
        FloatActivation("r1", "c1", Relu(None)),
        _conv("c2", "r1", (8, 8, 3, 3)),
        FloatAdd("add", ("c2", "relu")),
        FloatActivation("body", "add", Relu(None)),
        *HEAD,
    ),
    "shortcut": (
        *STEM,
        _conv("c1", "relu", (12, 8, 3, 3), stride=2),
        FloatShortcut("down", "relu", (2, 2), 12, 2),
        FloatAdd("add", ("down", "c1")),
        FloatActivation("r1", "add", Relu(None)),
        _conv("last", "r1", (5, 12, 1, 1)),
    ),
    "two convolutions": (
        *STEM,
        _conv("side", "relu", (12, 8, 1, 1), stride=2),
        _conv("c1", "relu", (12, 8, 3, 3), stride=2),
        FloatAdd("add", ("side", "c1")),
        FloatActivation("r1", "add", Relu(None)),
        _conv("last", "r1", (5, 12, 1, 1)),
    ),
    "linear between": (
        *STEM,
        _conv("linear", "relu", (8, 8, 3, 3)),
        _conv("last", "linear", (5, 8, 3, 3)),
    ),
    "sum of pools": (
        *STEM,
        FloatMaxPool("max", "relu", (2, 2), (2, 2), (0, 0, 0, 0)),
        FloatAveragePool("avg", "relu", (2, 2), (2, 2)),
        FloatAdd("add", ("max", "avg")),
        _conv("last", "add", (5, 8, 1, 1)),
    ),
    "twice": (*STEM, FloatAdd("double", ("relu", "relu")), _conv("last", "double", (5, 8, 1, 1))),
    "ends in pool": (*STEM, FloatMaxPool("max", "relu", (2, 2), (2, 2), (0, 0, 0, 0))),
    "ends in relu": (*STEM,),
    "relu6": (
        _conv("stem", INPUT, (8, 3, 3, 3)),
        FloatActivation("relu", "stem", Relu(1.0)),
        _conv("last", "relu", (5, 8, 3, 3)),
    ),
    "pooled input": (
        FloatMaxPool("max", INPUT, (2, 2), (2, 2), (0, 0, 0, 0)),
        FloatActivation("relu", "max", Relu(None)),
        _conv("last", "relu", (5, 3, 1, 1)),
    ),
    "shortcut alone": (
        *STEM,
        FloatShortcut("down", "relu", (2, 2), 12, 3),
        _conv("last", "down", (5, 12, 1, 1)),
    ),
}


def _images(count: int = 6, low: int = 0, high: int = 256) -> IntArray:
    return np.random.default_rng(5).integers(low, high, (count, *SHAPE)).astype(np.int64)


def _relative_error(values: FloatArray, truth: FloatArray) -> float:
    """Distance of two outputs whose unit differs, by least squares, over the truth's spread."""
    scale = float((values * truth).sum() / (values * values).sum())
    return float(np.sqrt(((scale * values - truth) ** 2).mean()) / truth.std())


def _error(graph: FloatGraph, config: QuantConfig, images: IntArray | None = None) -> float:
    images = _images() if images is None else images
    mean, std = np.array(config.mean), np.array(config.std)
    real = (images - mean.reshape(-1, 1, 1)) / std.reshape(-1, 1, 1)
    values = golden.simulate(quantize(graph, config), images)
    return _relative_error(values.astype(np.float64), evaluate(graph, real))


@pytest.mark.parametrize("name", NETWORKS)
def test_eight_bits_follow_the_float_network(name: str) -> None:
    assert _error(_graph(*NETWORKS[name]), FINE) < 0.05


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bits", [(4, 4, 8), (3, 5, 6), (2, 2, 8)])
def test_bounds_hold_on_random_images(name: str, bits: tuple[int, int, int]) -> None:
    config = replace(FINE, weight_bits=bits[0], act_bits=bits[1], edge_bits=bits[2])
    config = replace(config, activation="thresholds" if bits[0] == 4 else "table")
    graph = quantize(_graph(*NETWORKS[name]), config)
    values = golden.simulate(graph, np.concatenate([_images(2), np.full((1, *SHAPE), 255)]))
    last = graph.layers[-1]
    assert isinstance(last, MacLayer)
    assert last.activation is None
    assert np.abs(values).max() < 2 ** (last.value_bits - 1)
    inner = [layer for layer in graph.layers[:-1] if isinstance(layer, MacLayer)]
    assert all(layer.activation is not None for layer in inner)


def test_accumulator_bound_is_reached_by_the_worst_image() -> None:
    config = replace(FINE, weight_bits=4, act_bits=8, method="uniform")
    weight = np.full((1, 3, 8, 8), 0.5)
    conv = FloatConv("only", INPUT, weight, np.zeros(1), (1, 1), (0, 0, 0, 0), None)
    graph = quantize(_graph(conv), config)
    layer = graph.layers[0]
    assert isinstance(layer, MacLayer)
    places = 2 ** (graph.part_shift * np.arange(layer.weights.shape[0])[::-1])
    worst = 255 * int(np.tensordot(places, layer.weights, 1).sum())
    assert worst.bit_length() + 1 == layer.acc_bits


@pytest.mark.parametrize("name", ["residual", "two convolutions", "relu6"])
def test_power_with_exponent_one_computes_what_uniform_computes(name: str) -> None:
    config = replace(FINE, weight_bits=4, act_bits=4, accumulate="levels", exponent=1.0)
    graph = _graph(*NETWORKS[name])
    power, uniform = (
        quantize(graph, replace(config, method=method)) for method in ("power", "uniform")
    )
    for a, b in zip(power.layers, uniform.layers, strict=True):
        assert isinstance(a, MacLayer)
        assert isinstance(b, MacLayer)
        np.testing.assert_array_equal(a.weights, b.weights)
        assert a.activation == b.activation
    np.testing.assert_array_equal(power.input.table, uniform.input.table)


def test_channel_of_zeros_is_its_bias_exactly() -> None:
    stem, relu, last = NETWORKS["plain"]
    assert isinstance(last, FloatConv)
    weight = last.weight.copy()
    weight[2] = 0
    graph = _graph(stem, relu, replace(last, weight=weight))
    quantized = quantize(graph, replace(FINE, weight_bits=4, act_bits=4))
    layer = quantized.layers[-1]
    assert isinstance(layer, MacLayer)
    half = (1 << layer.shift) >> 1
    values = golden.simulate(quantized, _images())[:, 2]
    np.testing.assert_array_equal(values, (int(layer.bias[2]) + half) >> layer.shift)


def test_network_of_zeros_can_be_quantized() -> None:
    nodes = [
        replace(node, weight=0 * node.weight, bias=0 * node.bias)
        if isinstance(node, FloatConv)
        else node
        for node in NETWORKS["residual"]
    ]
    values = golden.simulate(quantize(_graph(*nodes), QuantConfig()), _images(1))
    np.testing.assert_array_equal(values, np.zeros((1, 5, 1, 1)))


def test_quantizing_twice_gives_the_same_integers() -> None:
    graph = _graph(*NETWORKS["residual"])
    one, two = (quantize(graph, QuantConfig()) for _ in range(2))
    for a, b in zip(one.layers, two.layers, strict=True):
        assert isinstance(a, MacLayer)
        assert isinstance(b, MacLayer)
        np.testing.assert_array_equal(a.weights, b.weights)
        np.testing.assert_array_equal(a.bias, b.bias)


def test_layers_are_fused() -> None:
    layers = quantize(_graph(*NETWORKS["residual"]), QuantConfig()).layers
    assert [layer.name for layer in layers] == ["stem", "c1", "c2", "fc"]
    add, pool = layers[2], layers[3]
    assert isinstance(add, MacLayer)
    assert add.residual is not None
    assert add.residual.source == "stem"
    assert isinstance(pool, MacLayer)
    assert (pool.kernel, pool.shared, pool.weights.shape[3:]) == ((8, 8), True, (1, 1))


def test_strided_shortcut_is_read_by_the_residual() -> None:
    layer = quantize(_graph(*NETWORKS["shortcut"]), QuantConfig()).layers[1]
    assert isinstance(layer, MacLayer)
    assert layer.residual is not None
    residual = layer.residual
    assert (residual.source, residual.stride, residual.channel_offset) == ("stem", (2, 2), 2)
    np.testing.assert_array_equal(residual.multiplier[[0, 1, 10, 11]], 0)


def test_only_edges_have_several_digits() -> None:
    graph = quantize(_graph(*NETWORKS["two convolutions"]), QuantConfig())
    macs = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
    assert {mac.name: mac.weights.shape[0] for mac in macs} == {
        "stem": 2, "side": 1, "c1": 1, "last": 2,
    }  # fmt: skip
    parts = {mac.name: mac.output.parts for mac in macs}
    assert (parts["stem"], parts["side"], parts["c1"]) == (1, 2, 2)
    assert graph.input.tensor.parts == 2


def test_multipliers_fit_sixteen_bits_and_use_them() -> None:
    for layer in quantize(_graph(*NETWORKS["residual"]), QuantConfig()).layers:
        assert isinstance(layer, MacLayer)
        skip = [] if layer.residual is None else [int(layer.residual.multiplier.max())]
        largest = max(int(layer.multiplier.max()), *skip, 0)
        assert 2**15 <= largest < 2**16 or layer.shift == 40


def test_padding_is_the_code_of_real_zero() -> None:
    config = QuantConfig(mean=(0.0, 100.0, 255.0), std=(50.0,), act_bits=8)
    pads = quantize(_graph(*NETWORKS["plain"]), config).input.tensor.pad_code
    grid = quantize(_graph(*NETWORKS["plain"]), config).input.table
    np.testing.assert_array_equal(pads, [grid[0], grid[100], grid[255]])


def test_input_table_grows_with_the_pixel() -> None:
    table = quantize(_graph(*NETWORKS["plain"]), QuantConfig()).input.table
    assert table.shape == (256,)
    assert (np.diff(table) >= 0).all()
    assert table[0] == 0
    assert table[-1] == 255


def test_signed_sensor_counts_from_below_zero() -> None:
    config = replace(FINE, input_signed=True, input_bits=6, std=(16.0,))
    graph = _graph(*NETWORKS["plain"])
    assert quantize(graph, config).input.low == -32
    assert _error(graph, config, _images(6, -32, 32)) < 0.05


def test_bias_correction_brings_means_back() -> None:
    """On pixels that are uniform, as assumed, the first layer's mean error nearly vanishes."""
    graph = _graph(*NETWORKS["one layer"])
    images = _images(300)
    truth = evaluate(graph, images / 64.0)
    errors = list[float]()
    for correct in (True, False):
        config = replace(FINE, weight_bits=2, act_bits=2, edge_bits=2, bias_correction=correct)
        values = golden.simulate(quantize(graph, config), images)
        scale = float((values * truth).sum() / (values * values).sum())
        errors.append(float(np.abs((scale * values - truth).mean(axis=(0, 2, 3))).max()))
    assert errors[0] < errors[1] / 2


def test_table_of_levels_and_products_agree() -> None:
    graph = _graph(*NETWORKS["residual"])
    config = replace(FINE, weight_bits=4, act_bits=4)
    product = quantize(graph, replace(config, accumulate="product", product_bits=16))
    levels = quantize(graph, replace(config, accumulate="levels"))
    one, two = (golden.simulate(g, _images()).astype(np.float64) for g in (product, levels))
    assert _relative_error(one, two) < 0.05


@pytest.mark.parametrize(
    ("weight_bits", "kind"), [(4, ProductTable), (6, ProductTable), (8, LevelTables)]
)
def test_small_codes_are_multiplied_by_table(weight_bits: int, kind: type) -> None:
    config = QuantConfig(weight_bits=weight_bits, act_bits=4)
    assert isinstance(quantize(_graph(*NETWORKS["plain"]), config).arithmetic, kind)


def test_stored_moments_set_the_range() -> None:
    stem, relu, last = NETWORKS["plain"]
    assert isinstance(stem, FloatConv)
    wide = Moments(np.zeros(8), np.full(8, 100.0))
    narrow = Moments(np.zeros(8), np.full(8, 0.01))
    tops: list[int] = []
    for moments in (wide, narrow):
        graph: QuantGraph = quantize(_graph(replace(stem, moments=moments), relu, last), FINE)
        tops.append(int(golden.trace(graph, _images(1)[0])["stem"].max()))
    assert tops[0] < 100
    assert tops[1] == 255


@pytest.mark.parametrize("search", ["weights", "both"])
def test_exponent_search_finds_the_least_of_a_sweep(search: Any) -> None:
    weight = np.random.default_rng(7).normal(size=(16, 8, 3, 3))
    sites = [Site(weight, Spread(np.zeros(8), np.ones(8), low=0.0))]
    error = weight_error(sites, 7) if search == "weights" else noise_to_signal(sites, 7, 15)
    least = min(error(exponent) for exponent in np.linspace(0.25, 1, 151))
    assert error(find_exponent(sites, 7, 15, search)) < 1.02 * least


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("weight_bits", 1, "2..8"),
        ("act_bits", 9, "2..8"),
        ("edge_bits", 3, "4..8"),
        ("product_bits", 3, "4..16"),
        ("input_bits", 0, "1..16"),
        ("method", "pot", "power, uniform, log"),
        ("search", "grid", "weights, both"),
        ("accumulate", "shift", "product, levels, auto"),
        ("activation", "pade", "not in this version"),
        ("activation", "newton", "not in this version"),
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


def test_mean_of_another_number_of_channels_is_refused() -> None:
    with pytest.raises(BadInput, match="1 or 3"):
        quantize(_graph(*NETWORKS["plain"]), QuantConfig(mean=(1.0, 2.0)))


def test_resnet20_keeps_its_accuracy_at_four_bits(shared: Path) -> None:
    graph = load(shared / "models" / "resnet20_cifar10.onnx")
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    quantized = quantize(graph, QuantConfig(mean=mean, std=std))
    with np.load(shared / "models" / "cifar10.npz") as data:
        images = data["x"][:100].transpose(0, 3, 1, 2).astype(np.int64)
        labels = data["y"][:100]
    found = golden.simulate(quantized, images)[:, :, 0, 0].argmax(axis=1)
    assert (found == labels).mean() > 0.85


@pytest.mark.parametrize("name", ["mlperf_ad_autoencoder", "jets_hls4ml_3layer"])
def test_networks_without_data_quantize(shared: Path, name: str) -> None:
    graph = load(shared / "models" / f"{name}.onnx")
    quantized = quantize(graph, QuantConfig())
    channels = graph.shapes[INPUT][0]
    images = np.random.default_rng(1).integers(0, 256, (2, channels, 1, 1))
    assert golden.simulate(quantized, images).any()
