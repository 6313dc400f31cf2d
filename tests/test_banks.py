"""Claims about copies: with them every layer finds its two operands in different banks of two."""

import numpy as np
import pytest

from hwquant.float_graph import (
    FloatActivation,
    FloatAdd,
    FloatAveragePool,
    FloatConcat,
    FloatMultiply,
    FloatNode,
    Relu,
    Sigmoid,
)
from hwquant.ir import INPUT, MacLayer
from hwquant.quantizer.banks import separate
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.lower import lower
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.placement import packings, place
from hwquant.scheduler.plan import Plan
from tests.float_graphs import NETWORKS, STEM, TWO, conv, graph
from tests.float_model import evaluate
from tests.test_lower import run

SQUARE, LAST = (8, 8, 3, 3), (5, 8, 1, 1)
PLAN = Plan(4, 4, 1)
COPIES: dict[str, tuple[tuple[FloatNode, ...], list[str]]] = {
    "own source": (
        (*STEM, conv("a", "relu", SQUARE), FloatAdd("b", ("a", "relu")), conv("c", "b", LAST)),
        ["a_operand"],
    ),
    "the image": (
        (conv("a", INPUT, (3, 3, 3, 3)), FloatAdd("b", ("a", INPUT)), conv("c", "b", (5, 3, 1, 1))),
        ["a_operand"],
    ),
    "doubled": ((*STEM, FloatAdd("b", ("relu", "relu")), conv("c", "b", LAST)), ["b_operand"]),
    "odd cycle": (
        (
            *STEM,
            *TWO,
            FloatActivation("r2", "c2", Relu(None)),
            FloatAdd("one", ("relu", "r1")),
            FloatAdd("two", ("r1", "r2")),
            FloatAdd("three", ("r2", "relu")),
            FloatConcat("cat", ("one", "two", "three")),
            conv("c", "cat", (5, 24, 1, 1)),
        ),
        ["three_operand"],
    ),
    "parts of one concat": (
        (
            *STEM,
            *TWO,
            FloatActivation("r2", "c2", Relu(None)),
            FloatConcat("cat", ("relu", "r2")),
            FloatAdd("sum", ("relu", "r2")),
            conv("inner", "cat", (8, 16, 1, 1)),
            FloatAdd("add", ("inner", "sum")),
            conv("c", "add", LAST),
        ),
        ["sum_operand"],
    ),
    "gate in one concat": (
        (
            *STEM,
            FloatAveragePool("pool", "relu", (8, 8), (8, 8)),
            FloatActivation("one", "pool", Sigmoid()),
            conv("two", "one", (8, 8, 1, 1)),
            FloatActivation("gate", "two", Sigmoid()),
            FloatConcat("cat", ("one", "gate")),
            FloatMultiply("gated", "one", "gate"),
            conv("inner", "cat", (8, 16, 1, 1)),
            FloatAdd("add", ("inner", "gated")),
            conv("c", "add", LAST),
        ),
        ["gated_operand"],
    ),
}


@pytest.mark.parametrize("claim", COPIES)
def test_operands_are_copied_where_two_banks_do_not_do(claim: str) -> None:
    nodes, copies = COPIES[claim]
    floating = graph(*nodes)
    layers = separate(lower(floating), floating.shapes)
    names = {layer.name for layer in lower(floating)}
    assert [layer.name for layer in layers if layer.name not in names] == copies
    images = np.random.default_rng(6).normal(size=(2, *floating.shapes[INPUT]))
    np.testing.assert_allclose(run(floating, layers, images), evaluate(floating, images), atol=1e-9)
    quantized = quantize(floating, QuantConfig())
    places, _ = place(quantized, PLAN, packings(quantized, PLAN)[0])
    pairs = [
        (places[layer.source], places[layer.operand])
        for layer in quantized.layers
        if isinstance(layer, MacLayer) and layer.operand
    ]
    assert pairs
    assert all(source.bank != operand.bank for source, operand in pairs)


@pytest.mark.parametrize("claim", ["residual", "two convolutions", "dense", "gate and function"])
def test_networks_that_two_banks_hold_stay_as_they_are(claim: str) -> None:
    floating = graph(*NETWORKS[claim])
    layers = lower(floating)
    assert separate(layers, floating.shapes) == layers
