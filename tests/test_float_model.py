"""The fast executor agrees with the slow one and holds no more tensors than it needs."""

import gc
import weakref

import numpy as np

from hwquant.float_graph import (
    FloatActivation,
    FloatAdd,
    FloatAveragePool,
    FloatConcat,
    FloatConv,
    FloatGraph,
    FloatMaxPool,
    FloatMultiply,
    FloatShortcut,
    HardSigmoid,
    Relu,
    Silu,
)
from hwquant.ir import INPUT, FloatArray
from hwquant.quantizer import float_model
from tests.float_model import evaluate

RNG = np.random.default_rng(3)
NODES = (
    FloatConv(
        "c", INPUT, RNG.normal(size=(6, 3, 3, 2)), RNG.normal(size=6), (2, 1), (1, 0, 2, 3), None
    ),
    FloatActivation("silu", "c", Silu()),
    FloatConv(
        "d",
        "silu",
        RNG.normal(size=(6, 1, 3, 5)),
        RNG.normal(size=6),
        (1, 2),
        (1, 1, 1, 2),
        None,
        6,
    ),
    FloatConv(
        "e",
        "silu",
        RNG.normal(size=(4, 3, 3, 5)),
        RNG.normal(size=4),
        (1, 2),
        (1, 1, 1, 2),
        None,
        2,
    ),
    FloatConcat("cat", ("e", "d", "e")),
    FloatAveragePool("mean", "cat", (5, 5), (5, 5)),
    FloatActivation("hard", "mean", HardSigmoid(0.2, 0.5)),
    FloatMultiply("gated", "cat", "hard"),
    FloatMaxPool("most", "gated", (3, 2), (2, 2), (1, 1, 1, 0)),
    FloatAveragePool("some", "most", (2, 1), (1, 1)),
    FloatShortcut("wide", "some", (1, 2), 20, 3),
    FloatAdd("sum", ("wide", "wide")),
    FloatConv(
        "fc", "sum", RNG.normal(size=(5, 20, 2, 2)), RNG.normal(size=5), (1, 1), (0, 0, 0, 0), None
    ),
    FloatActivation("relu", "fc", Relu(3.0)),
)
SHAPES = {
    INPUT: (3, 9, 8),
    "c": (6, 5, 10),
    "silu": (6, 5, 10),
    "d": (6, 5, 5),
    "e": (4, 5, 5),
    "cat": (14, 5, 5),
    "mean": (14, 1, 1),
    "hard": (14, 1, 1),
    "gated": (14, 5, 5),
    "most": (14, 3, 3),
    "some": (14, 2, 3),
    "wide": (20, 2, 2),
    "sum": (20, 2, 2),
    "fc": (5, 1, 1),
    "relu": (5, 1, 1),
}
GRAPH = FloatGraph("net", "0" * 64, "NCHW", NODES, SHAPES, "relu")


def images(count: int) -> FloatArray:
    return np.random.default_rng(4).normal(size=(count, 3, 9, 8))


def test_every_kind_of_node_agrees_with_the_slow_executor() -> None:
    wanted = evaluate(GRAPH, images(3))
    found = float_model.evaluate(GRAPH, images(3), np.float64)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
    single = float_model.evaluate(GRAPH, images(3))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, wanted, rtol=1e-4, atol=1e-4)


def test_stream_yields_every_node_in_the_shape_of_the_graph() -> None:
    seen = [(node, tensor.shape) for node, tensor in float_model.stream(GRAPH, images(2))]
    assert seen == [(node, (2, *SHAPES[node.name])) for node in NODES]


def test_a_tensor_that_no_one_reads_any_more_is_let_go() -> None:
    alive = weakref.WeakValueDictionary[str, np.ndarray]()
    most = 0
    for node, tensor in float_model.stream(GRAPH, images(2)):
        alive[node.name] = tensor if tensor.base is None else tensor.base
        del tensor
        gc.collect()
        most = max(most, len(alive))
    assert most <= 4, "e and d wait for cat, which waits for its gate"
