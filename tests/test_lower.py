"""Claims about lowering: layers compute what the nodes compute, and rows can lie in one place."""

from itertools import combinations
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
    Relu,
    Sigmoid,
    Silu,
)
from hwquant.importer.load import load
from hwquant.ir import INPUT, FloatArray
from hwquant.quantizer.lower import FloatCat, FloatLayer, FloatMac, FloatMax, lower
from tests.float_model import evaluate, function

SHAPE = (4, 6, 6)
NONE = (0, 0, 0, 0)


def conv(
    name: str, source: str, channels: int, count: int, kernel: int = 1, groups: int = 1
) -> FloatConv:
    rng = np.random.default_rng(len(name) + count)
    weight = rng.normal(size=(count, channels // groups, kernel, kernel))
    pad, bias = kernel // 2, rng.normal(size=count)
    return FloatConv(name, source, weight, bias, (1, 1), (pad, pad, pad, pad), None, groups)


A = conv("a", INPUT, 4, 4, 3)
B = FloatActivation("b", "a", Silu())
C = conv("c", "b", 4, 4, 3, groups=4)
LAST = conv("last", "top", 8, 3)
NETWORKS: dict[str, tuple[FloatNode, ...]] = {
    "function behind a depthwise layer": (
        A,
        B,
        C,
        FloatActivation("d", "c", Sigmoid()),
        conv("e", "d", 4, 2),
    ),
    "squeeze and excite": (
        A,
        B,
        FloatAveragePool("mean", "b", (6, 6), (6, 6)),
        conv("s", "mean", 4, 2),
        conv("g", "s", 2, 4),
        FloatActivation("gate", "g", Sigmoid()),
        FloatMultiply("m", "b", "gate"),
        conv("e", "m", 4, 2),
    ),
    "pool before as many channels": (
        A,
        FloatAveragePool("mean", "a", (6, 6), (6, 6)),
        conv("s", "mean", 4, 4),
        conv("e", "s", 4, 2),
    ),
    "pool before the output": (
        A,
        FloatAveragePool("mean", "a", (6, 6), (6, 6)),
        conv("e", "mean", 4, 2),
    ),
    "pool of a part": (
        A,
        FloatAveragePool("mean", "a", (2, 2), (2, 2)),
        conv("e", "mean", 4, 8),
    ),
    "function behind a multiply": (
        A,
        B,
        FloatAveragePool("mean", "b", (6, 6), (6, 6)),
        FloatMultiply("m", "b", "mean"),
        FloatActivation("r", "m", Relu(None)),
        conv("e", "r", 4, 2),
    ),
    "gate as output": (
        A,
        FloatMaxPool("g", "a", (6, 6), (6, 6), NONE),
        FloatMultiply("m", "a", "g"),
    ),
    "concat": (A, B, C, FloatConcat("top", ("b", "c")), LAST),
    "concat of a pool": (
        A,
        FloatMaxPool("p", "a", (3, 3), (1, 1), (1, 1, 1, 1)),
        B,
        C,
        FloatConcat("top", ("p", "c")),
        LAST,
    ),
    "concat is the output": (A, B, FloatConcat("top", ("a", "b"))),
    "concat of an average pool": (
        A,
        B,
        FloatAveragePool("p", "b", (1, 1), (1, 1)),
        FloatConcat("top", ("p", "b")),
        LAST,
    ),
    "concat of a shortcut and a sum": (
        A,
        B,
        FloatShortcut("s", "b", (1, 1), 4, 0),
        FloatAdd("sum", ("s", "a")),
        FloatConcat("top", ("s", "sum")),
        LAST,
    ),
    "concat of the input": (A, FloatConcat("top", (INPUT, "a")), LAST),
    "concat of one tensor twice": (A, B, FloatConcat("top", ("b", "b")), LAST),
    "dense": (
        A,
        B,
        FloatConcat("one", ("a", "b")),
        conv("c", "one", 8, 4),
        FloatConcat("two", ("one", "c")),
        conv("d", "two", 12, 4),
        FloatConcat("three", ("two", "d")),
        conv("e", "three", 16, 2),
    ),
    "dense from the input": (
        A,
        FloatConcat("one", (INPUT, "a")),
        conv("c", "one", 8, 4),
        FloatConcat("two", ("one", "c")),
        conv("e", "two", 12, 2),
    ),
    "concats of concats alone": (
        A,
        B,
        FloatConcat("one", ("a", "b")),
        C,
        FloatConcat("two", ("one", "c")),
        conv("e", "two", 12, 2),
    ),
    "longer concat first": (
        A,
        B,
        C,
        FloatConcat("one", ("a", "b", "c")),
        conv("d", "one", 12, 8),
        FloatConcat("two", ("a", "b")),
        FloatAdd("top", ("d", "two")),
        LAST,
    ),
    "other order": (
        A,
        B,
        FloatConcat("one", ("a", "b")),
        FloatConcat("two", ("b", "a")),
        FloatAdd("top", ("one", "two")),
        LAST,
    ),
    "same start": (
        A,
        B,
        C,
        FloatConcat("one", ("a", "b")),
        FloatConcat("two", ("a", "c")),
        FloatAdd("top", ("one", "two")),
        LAST,
    ),
    "other tail": (
        A,
        B,
        C,
        FloatConcat("one", ("a", "b")),
        conv("d", "one", 8, 4),
        FloatConcat("x", ("c", "d")),
        FloatConcat("y", ("a", "b", "d")),
        conv("f", "y", 12, 8),
        FloatAdd("top", ("f", "x")),
        LAST,
    ),
}
COPIES = {
    "concat of the input": ["top_0"],
    "concat of one tensor twice": ["top_1"],
    "dense from the input": ["one_0"],
    "other order": ["two_0", "two_1"],
    "same start": ["two_0"],
    "other tail": ["y_2"],
}


def graph(claim: str) -> FloatGraph:
    nodes = NETWORKS[claim]
    shapes: dict[str, tuple[int, int, int]] = {INPUT: SHAPE}
    for node in nodes:
        match node:
            case FloatConv():
                shapes[node.name] = (len(node.weight), *shapes[node.source][1:])
            case FloatMaxPool() | FloatAveragePool():
                channels, height, width = shapes[node.source]
                down, right = node.stride
                shapes[node.name] = (channels, height // down, width // right)
            case FloatConcat():
                count = sum(shapes[name][0] for name in node.sources)
                shapes[node.name] = (count, *SHAPE[1:])
            case FloatAdd():
                shapes[node.name] = shapes[node.sources[0]]
            case _:
                shapes[node.name] = shapes[node.source]
    return FloatGraph("net", "0" * 64, "NCHW", nodes, shapes, nodes[-1].name)


def run(floating: FloatGraph, layers: tuple[FloatLayer, ...], images: FloatArray) -> FloatArray:
    """Compute layer after layer, each as the docstrings of ``lower`` say."""
    made = {INPUT: images}
    for layer in layers:
        match layer:
            case FloatCat():
                made[layer.name] = np.concatenate([made[name] for name in layer.sources], axis=1)
            case FloatMax():
                node = FloatMaxPool("n", INPUT, layer.kernel, layer.stride, layer.pads)
                made[layer.name] = one(node, made[layer.source], floating.shapes[layer.tensor])
            case FloatMac():
                made[layer.name] = mac(floating, layer, made)
            case _:
                raise AssertionError(f"{layer.name}: no layer of a convolutional network")
        assert made[layer.name].shape[1:] == floating.shapes[layer.tensor], layer.name
    return made[layers[-1].name]


def one(node: FloatNode, source: FloatArray, shape: tuple[int, int, int]) -> FloatArray:
    shapes = {INPUT: (source.shape[1], source.shape[2], source.shape[3]), "n": shape}
    return evaluate(FloatGraph("one", "", "NCHW", (node,), shapes, "n"), source)


def mac(floating: FloatGraph, layer: FloatMac, made: dict[str, FloatArray]) -> FloatArray:
    window = layer.kernel if layer.shared else (1, 1)
    weight = np.tile(layer.weight, (1, 1, *window))
    node = FloatConv("n", INPUT, weight, layer.bias, layer.stride, layer.pads, None, layer.groups)
    assert weight.shape[2:] == layer.kernel
    value = one(node, made[layer.source], floating.shapes[layer.tensor])
    if layer.gate:
        value = value * made[layer.gate]
    if layer.skip:
        down, right = layer.skip.stride
        skip = made[layer.skip.source][:, :, ::down, ::right]
        first = layer.skip.channel_offset
        value[:, first : first + skip.shape[1]] += skip
    return value if layer.function is None else function(layer.function, value)


@pytest.mark.parametrize("claim", NETWORKS)
def test_layers_compute_what_the_nodes_compute(claim: str) -> None:
    floating = graph(claim)
    layers = lower(floating)
    images = np.random.default_rng(6).normal(size=(2, *SHAPE))
    np.testing.assert_allclose(run(floating, layers, images), evaluate(floating, images), atol=1e-9)
    names = [layer.name for layer in layers]
    assert len(set(names)) == len(names)
    last = layers[-1]
    assert isinstance(last, FloatMac)
    assert last.function is None


@pytest.mark.parametrize("name", ["fmnist_densenet", "fmnist_silu_se", "mlperf_kws_dscnn"])
def test_layers_of_a_real_network_compute_what_its_nodes_compute(shared: Path, name: str) -> None:
    floating = load(shared / "models" / f"{name}.onnx")
    images = np.random.default_rng(6).normal(size=(1, *floating.shapes[INPUT]))
    wanted = evaluate(floating, images)
    np.testing.assert_allclose(run(floating, lower(floating), images), wanted, rtol=1e-9)


@pytest.mark.parametrize("claim", NETWORKS)
def test_rows_that_share_a_layer_start_alike(claim: str) -> None:
    layers = lower(graph(claim))
    cats = [layer for layer in layers if isinstance(layer, FloatCat)]
    for cat in cats:
        assert len(set(cat.sources)) == len(cat.sources)
        assert INPUT not in cat.sources
        assert not {other.name for other in cats} & set(cat.sources)
    for one, other in combinations([cat.sources for cat in cats], 2):
        count = min(len(one), len(other))
        assert one[:count] == other[:count] or not set(one) & set(other)
    copies = [layer.name for layer in layers if layer.name not in graph(claim).shapes]
    wanted = COPIES.get(claim, [])
    assert [name for name in copies if not name.endswith("_output")] == wanted


def test_identity_layers_are_depthwise_and_only_multiplies_have_gates() -> None:
    _, _, gate, multiply, last = lower(graph("squeeze and excite"))
    assert isinstance(gate, FloatMac)
    assert isinstance(multiply, FloatMac)
    assert isinstance(last, FloatMac)
    assert gate.function == Sigmoid()
    assert (multiply.gate, multiply.groups, multiply.weight.shape) == ("g", 4, (4, 1, 1, 1))
    assert last.gate is None


@pytest.mark.parametrize(
    ("claim", "layers"),
    [
        ("squeeze and excite", ["a", "s", "g", "m", "e"]),
        ("pool before as many channels", ["a", "mean", "s", "e"]),
        ("pool before the output", ["a", "mean", "e"]),
        ("pool of a part", ["a", "e"]),
    ],
)
def test_pools_fold_where_that_multiplies_little(claim: str, layers: list[str]) -> None:
    found = lower(graph(claim))
    assert [layer.name for layer in found] == layers
    assert [layer.name for layer in found if isinstance(layer, FloatMac) and layer.shared] == [
        layers[1]
    ]


def test_concat_that_only_concats_read_is_no_layer() -> None:
    cats = [
        layer for layer in lower(graph("concats of concats alone")) if isinstance(layer, FloatCat)
    ]
    assert cats == [FloatCat("two", ("a", "b", "c"), "two")]
