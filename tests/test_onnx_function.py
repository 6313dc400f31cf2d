"""Chains of elementwise operators are recognized by what they compute."""

import math
from pathlib import Path

import numpy as np
import pytest

from hwquant.float_graph import (
    Elu,
    FloatActivation,
    FloatAdd,
    FloatConv,
    FloatGraph,
    Function,
    Gelu,
    HardSigmoid,
    HardSwish,
    HardTanh,
    LeakyRelu,
    Mish,
    Relu,
    Sigmoid,
    Silu,
    Softplus,
    Tanh,
)
from hwquant.ir import INPUT
from tests.onnx_models import Arrays, assert_same_function, save

NCHW = "float[N, 3, 9, 8]"
NUMBERS = {
    "zero": 0.0,
    "half": 0.5,
    "one": 1.0,
    "two": 2.0,
    "three": 3.0,
    "six": 6.0,
    "sixth": 1 / 6,
    "quarter": 0.25,
    "root": 2**0.5,
    "inverse": 0.5**0.5,
    "cubic": 0.044715,
    "pi": (2 / np.pi) ** 0.5,
    "slope": 0.2,
    "quick": 1.75,
    "huge": 3.4028234663852886e38,
}
ERF = "v = Div(x, root) e = Erf(v) p = Add(e, one)"
TANH = "v = Pow(x, three) a = Mul(cubic, v) b = Add(x, a) c = Mul(pi, b) d = Tanh(c)"
GATE = "v = Add(x, three) e = Clip(v, zero, six)"
EXACT, CURVED = Gelu(is_tanh=False), Gelu(is_tanh=True)
CHAINS: dict[str, tuple[Function, str]] = {
    "ReLU": (Relu(None), "y = Relu(x)"),
    "Max": (Relu(None), "y = Max(zero, x)"),
    "Clip without ceiling": (Relu(None), "y = Clip(x, zero, huge)"),
    "ReLU6": (Relu(6.0), "y = Clip(x, zero, six)"),
    "Min and Max": (Relu(6.0), "m = Max(x, zero) y = Min(six, m)"),
    "ReLU of ReLU6": (Relu(1.0), "r = Relu(x) y = Min(r, one)"),
    "LeakyReLU": (LeakyRelu(0.25), "y = LeakyRelu<alpha=0.25>(x)"),
    "LeakyReLU as Max": (LeakyRelu(0.25), "m = Mul(x, quarter) y = Max(m, x)"),
    "PReLU": (LeakyRelu(0.25), "y = PRelu(x, quarter)"),
    "CELU": (Elu(1.0), "y = Celu(x)"),
    "ELU": (Elu(1.0), "y = Elu(x)"),
    "ELU, steep": (Elu(1.5), "y = Elu<alpha=1.5>(x)"),
    "Softplus": (Softplus(), "y = Softplus(x)"),
    "Mish": (Mish(), "p = Softplus(x) t = Tanh(p) y = Mul(x, t)"),
    "Sigmoid of Exp": (Sigmoid(), "n = Neg(x) e = Exp(n) p = Add(e, one) y = Reciprocal(p)"),
    "SiLU": (Silu(), "s = Sigmoid(x) y = Mul(x, s)"),
    "SiLU, other order": (Silu(), "s = Sigmoid(x) y = Mul(s, x)"),
    "SiLU as Div": (Silu(), "n = Neg(x) e = Exp(n) p = Add(one, e) y = Div(x, p)"),
    "QuickGELU": (Silu(1.75), "v = Mul(x, quick) s = Sigmoid(v) y = Mul(x, s)"),
    "Swish": (Silu(0.5), "v = Mul(x, half) s = Sigmoid(v) y = Mul(s, x)"),
    "HardTanh without ceiling": (HardTanh(-0.5, math.inf), "n = Neg(half) y = Clip(x, n)"),
    "Tanh": (Tanh(), "y = Tanh(x)"),
    "GELU of torch": (EXACT, f"{ERF} m = Mul(x, p) y = Mul(m, half)"),
    "GELU, half first": (EXACT, f"{ERF} h = Mul(x, half) y = Mul(h, p)"),
    "GELU, half of the bracket": (EXACT, f"{ERF} h = Mul(p, half) y = Mul(h, x)"),
    "GELU, halves inside": (
        EXACT,
        "v = Mul(x, inverse) e = Erf(v) h = Mul(e, half) p = Add(half, h) y = Mul(x, p)",
    ),
    "GELU divided": (EXACT, f"{ERF} m = Mul(p, x) y = Div(m, two)"),
    "GELU by tanh": (CURVED, f"{TANH} e = Add(d, one) f = Mul(x, half) y = Mul(f, e)"),
    "GELU by tanh, multiplied out": (
        CURVED,
        (
            "v = Mul(x, x) w = Mul(v, x) a = Mul(w, cubic) b = Add(a, x) c = Mul(b, pi) "
            "d = Tanh(c) e = Mul(d, half) f = Add(e, half) y = Mul(f, x)"
        ),
    ),
    "HardSigmoid": (HardSigmoid(0.25, 0.5), "y = HardSigmoid<alpha=0.25, beta=0.5>(x)"),
    "HardSigmoid of ReLU6": (HardSigmoid(1 / 6, 0.5), f"{GATE} y = Div(e, six)"),
    "HardSigmoid, Mul": (HardSigmoid(float(np.float32(1 / 6)), 0.5), f"{GATE} y = Mul(e, sixth)"),
    "HardTanh": (HardTanh(-0.5, 3.0), "n = Neg(half) y = Clip(x, n, three)"),
    "HardSwish": (HardSwish(), "y = HardSwish(x)"),
    "HardSwish of HardSigmoid": (
        HardSwish(),
        "s = HardSigmoid<alpha=0.16666667163372, beta=0.5>(x) y = Mul(x, s)",
    ),
    "HardSwish of Clip": (HardSwish(), f"{GATE} m = Mul(x, e) y = Div(m, six)"),
    "HardSwish of Clip, Div first": (HardSwish(), f"{GATE} d = Div(e, six) y = Mul(d, x)"),
    "HardSwish of Clip, Mul": (HardSwish(), f"{GATE} d = Mul(x, sixth) y = Mul(e, d)"),
}


def loaded(folder: Path, body: str, opset: int = 17) -> FloatGraph:
    given: Arrays = {
        name: np.array(value, np.float32)
        for name, value in NUMBERS.items()
        if f" {name}" in body or f"({name}" in body
    }
    return assert_same_function(save(folder, NCHW, body, 4, opset, given), spread=3.0)


@pytest.mark.parametrize("claim", CHAINS)
def test_chain_is_one_function_of_the_input(tmp_path: Path, claim: str) -> None:
    wanted, body = CHAINS[claim]
    (node,) = loaded(tmp_path, body).nodes
    assert isinstance(node, FloatActivation)
    if isinstance(wanted, HardSigmoid) and isinstance(node.function, HardSigmoid):
        assert node.function.slope == pytest.approx(wanted.slope, rel=1e-12)
        assert node.function.offset == pytest.approx(wanted.offset, rel=1e-7)
    else:
        assert node == FloatActivation(node.name, INPUT, wanted)


@pytest.mark.parametrize("kind", ["none", "tanh"])
def test_gelu_operator_is_known(tmp_path: Path, kind: str) -> None:
    (node,) = loaded(tmp_path, f'y = Gelu<approximate="{kind}">(x)', opset=20).nodes
    assert node == FloatActivation(node.name, INPUT, Gelu(is_tanh=kind == "tanh"))


def functions(graph: FloatGraph) -> list[Function | None]:
    """Functions of the nodes in order, ``None`` for a convolution."""
    return [node.function if isinstance(node, FloatActivation) else None for node in graph.nodes]


def test_numbers_before_a_function_fold_into_the_layer_before(tmp_path: Path) -> None:
    body = "c = Conv(x, w_4_3_3_3) m = Mul(c, two) a = Add(m, half) y = Relu(a)"
    assert functions(loaded(tmp_path, body)) == [None, Relu(None)]


def test_hard_sigmoid_is_whole_behind_a_layer_that_could_take_its_offset(tmp_path: Path) -> None:
    body = (
        "c = Conv(x, w_4_3_3_3) v = Add(c, three) e = Clip(v, zero, six) d = Div(e, six) "
        "y = Conv(d, w_2_4_1_1)"
    )
    (_, found, _) = functions(loaded(tmp_path, body))
    assert isinstance(found, HardSigmoid)


def test_offset_that_others_read_too_is_not_folded_twice(tmp_path: Path) -> None:
    """The conv may take the offset for its other reader, or leave it, but not both."""
    start = "c = Conv(x, w_4_3_3_3) v = Add(c, three) "
    sigmoid = "e = Clip(v, zero, six) d = Div(e, six) f = Conv(d, w_2_4_1_1) "
    other = "g = Conv(v, k_2_4_1_1) "
    end = "y = Concat<axis=1>(f, g)"
    for body in (start + sigmoid + other + end, start + other + sigmoid + end):
        loaded(tmp_path, body)


def test_factor_around_a_function_becomes_a_depthwise_layer(tmp_path: Path) -> None:
    body = f"c = Conv(x, w_4_3_3_3) {ERF.replace('(x', '(c')} y = Mul(c, p)"
    graph = loaded(tmp_path, body)
    assert functions(graph) == [None, EXACT, None]
    last = graph.nodes[-1]
    assert isinstance(last, FloatConv)
    assert last.groups == 4
    np.testing.assert_allclose(last.weight, 2)


def test_function_of_a_function_is_two_nodes(tmp_path: Path) -> None:
    body = "r = Relu(x) s = Sigmoid(r) y = Mul(r, s)"
    assert functions(loaded(tmp_path, body)) == [Relu(None), Silu()]
    body = "t = Tanh(x) n = Mul(t, two) s = Sigmoid(n) y = Conv(s, w_4_3_1_1)"
    assert functions(loaded(tmp_path, body)) == [Tanh(), None, Sigmoid(), None]


def test_sum_of_two_functions_of_one_tensor_is_an_add(tmp_path: Path) -> None:
    graph = loaded(tmp_path, "t = Tanh(x) s = Sigmoid(x) y = Add(t, s)")
    assert isinstance(graph.nodes[-1], FloatAdd)
    assert functions(graph) == [Tanh(), Sigmoid(), None]


def test_shared_function_is_computed_once(tmp_path: Path) -> None:
    body = (
        "s = Sigmoid(x) m = Mul(x, s) c = Conv(m, w_4_3_1_1) d = Conv(m, k_4_3_1_1) "
        "e = Conv(s, l_4_3_1_1) f = Add(c, d) y = Add(e, f)"
    )
    found = functions(loaded(tmp_path, body))
    assert found.count(Silu()) == found.count(Sigmoid()) == 1
