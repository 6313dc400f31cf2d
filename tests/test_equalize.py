"""Claims about cross-layer equalization."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwquant.float_graph import (
    FloatActivation,
    FloatConv,
    FloatGraph,
    FloatNode,
    LeakyRelu,
    Moments,
    Relu,
)
from hwquant.importer.load import load
from hwquant.ir import INPUT, FloatArray
from hwquant.quantizer import float_model
from hwquant.quantizer.equalize import equalize, find_pairs
from tests.float_graphs import NETWORKS, SHAPE, conv, graph


def chain(seed: int) -> FloatGraph:
    """A stem, then convolutions of random groups, their channels scaled wildly; some are dead."""
    rng = np.random.default_rng(seed)
    nodes, channels, source = list[FloatNode](), SHAPE[0], INPUT
    for index in range(6):
        name = f"c{index}"
        groups = int(rng.choice([1, 1, 2, channels])) if index else 1
        groups = groups if channels % groups == 0 else 1
        made = int(groups * rng.integers(1, 3)) if groups > 1 else 2 * int(rng.integers(1, 5))
        node = conv(name, source, (made, channels // groups, 3, 3), groups=groups)
        wild = 10 ** rng.uniform(-2, 2, (made, 1, 1, 1)) * (rng.random((made, 1, 1, 1)) < 0.9)
        moments = Moments(rng.normal(size=made), rng.uniform(0.5, 2, made))
        nodes.append(replace(node, weight=node.weight * wild, moments=moments))
        channels, source = made, name
        if rng.random() < 0.7:
            kind = Relu(None) if rng.random() < 0.8 else Relu(6.0)
            source = f"r{index}"
            nodes.append(FloatActivation(source, name, kind))
    return graph(*nodes)


def of(floating: FloatGraph, name: str) -> FloatConv:
    node = next(node for node in floating.nodes if node.name == name)
    assert isinstance(node, FloatConv)
    return node


def computed(floating: FloatGraph, seed: int = 0, count: int = 3) -> FloatArray:
    images = np.random.default_rng(seed).normal(size=(count, *floating.shapes[INPUT]))
    return float_model.evaluate(floating, images, np.float64)


def assert_same_function(one: FloatGraph, other: FloatGraph) -> None:
    want = computed(one)
    error = np.abs(computed(other) - want).max()
    assert error <= 1e-11 * np.abs(want).max(), error


def ranges(first: FloatConv, second: FloatConv) -> tuple[FloatArray, FloatArray]:
    """Largest weight of each channel between two layers, on either side, channel by channel."""
    each, outputs = second.weight.shape[1], len(second.weight) // second.groups
    behind = np.zeros(len(first.weight))
    for channel in range(len(behind)):
        group, inside = divmod(channel, each)
        readers = second.weight[group * outputs : (group + 1) * outputs, inside]
        behind[channel] = np.abs(readers).max()
    return np.abs(first.weight).reshape(len(first.weight), -1).max(axis=1), behind


@pytest.mark.parametrize("seed", range(12))
def test_equalized_network_computes_the_same_with_equal_ranges(seed: int) -> None:
    floating = chain(seed)
    made = equalize(floating)
    assert_same_function(floating, made)
    assert find_pairs(floating)
    for first, second in find_pairs(floating):
        before, behind = ranges(of(made, first), of(made, second))
        is_alive = (before > 0) & (behind > 0)
        np.testing.assert_allclose(before[is_alive], behind[is_alive], rtol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_every_kind_compute_the_same(name: str) -> None:
    floating = graph(*NETWORKS[name])
    assert_same_function(floating, equalize(floating))


@pytest.mark.parametrize("name", ["mlperf_kws_dscnn", "mlperf_vww_mobilenetv1"])
def test_networks_of_the_world_compute_the_same(name: str, shared: Path) -> None:
    floating = load(shared / "models" / f"{name}.onnx")
    assert len(find_pairs(floating)) >= 8
    assert_same_function(floating, equalize(floating))


def test_statistics_are_scaled_with_their_channels() -> None:
    floating = chain(3)
    made = equalize(floating)
    before, behind = of(floating, "c0"), of(made, "c0")
    assert before.moments is not None
    assert behind.moments is not None
    live = np.abs(before.weight).max(axis=(1, 2, 3)) > 0
    share = (behind.weight / np.where(before.weight == 0, 1, before.weight)).max(axis=(1, 2, 3))
    for old, new in (
        (before.bias, behind.bias),
        (before.moments.mean, behind.moments.mean),
        (before.moments.std, behind.moments.std),
    ):
        np.testing.assert_allclose(new[live], (old * share)[live], rtol=1e-9)
        np.testing.assert_array_equal(new[~live], old[~live])


RELU = FloatActivation("relu", "c1", Relu(None))
C1, C2 = conv("c1", INPUT, (4, 3, 3, 3)), conv("c2", "relu", (4, 4, 3, 3))


@pytest.mark.parametrize(
    ("nodes", "pairs"),
    [
        ((C1, RELU, C2), [("c1", "c2")]),
        ((C1, replace(C2, source="c1")), [("c1", "c2")]),
        ((C1, replace(RELU, function=Relu(6.0)), C2), []),
        ((C1, replace(RELU, function=LeakyRelu(0.1)), C2), []),
        ((C1, RELU, C2, replace(C2, name="c3")), []),
        ((C1, RELU, C2, replace(C2, name="c3", source="c1")), []),
        ((replace(RELU, source=INPUT), replace(C2, weight=C2.weight[:, :3])), []),
    ],
    ids=["relu", "nothing", "relu6", "leaky", "read twice", "read before", "input"],
)
def test_pairs_are_convolutions_with_nothing_else_between(
    nodes: tuple[FloatNode, ...], pairs: list[tuple[str, str]]
) -> None:
    assert find_pairs(graph(*nodes)) == pairs


def test_output_that_is_read_inside_is_left_alone() -> None:
    floating = replace(graph(C1, RELU, C2), output="relu")
    assert equalize(floating).nodes[0] is floating.nodes[0]
