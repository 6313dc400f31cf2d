"""Transformers: from ONNX to integers, golden against its oracle, and the bounds of each layer."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from hwquant import golden, model_file
from hwquant.accuracy import float_outputs, normalise
from hwquant.errors import BadInput, UnsupportedModel
from hwquant.float_graph import FloatLayerNorm, FloatMatMul, FloatSoftmax
from hwquant.golden.attention import attend, square_root
from hwquant.importer.load import load
from hwquant.ir import (
    INPUT,
    AttentionLayer,
    IntArray,
    LayerNormLayer,
    MacLayer,
    MatMulLayer,
    QuantGraph,
    Saturate,
    SoftmaxLayer,
    Tensor,
)
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.lower import lower
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.schedule import schedule
from tests import slow_golden
from tests.onnx_models import assert_same_function, save
from tests.random_attention import random_attention
from tests.random_graphs import graphs_equal, random_images
from tests.small import assert_refused, hwquant

SEEDS = range(40)
VIT = "models/fmnist_vit.onnx"
FASHION = QuantConfig(act_bits=8, mean=(72.93,), std=(90.015,))

TOKENS = "float[N, 4, 3, 3]"
EMBED = (
    "p = Conv(x, w_8_4_1_1, b_8) s = Constant<value_ints=[0, 8, 9]>() r = Reshape(p, s) "
    "t = Transpose<perm=[0, 2, 1]>(r) "
)
NORMED = EMBED + "n = LayerNormalization<axis=-1>(t, w_8, b_8) "
ONE_HEAD = (
    NORMED + "q = MatMul(n, w_8_8) k = MatMul(n, v_8_8) v = MatMul(n, u_8_8) "
    "kt = Transpose<perm=[0, 2, 1]>(k) qk = MatMul(q, kt) f = Constant<value_float=0.3>() "
    "l = Mul(qk, f) a = Softmax<axis=-1>(l) m = MatMul(a, v) z = Add(t, m) "
)
HEAD = "o = ReduceMean<axes=[1], keepdims=0>(z) y = MatMul(o, w_8_3)"
SHAPE = "s4 = Constant<value_ints=[0, 0, 2, 4]>() s3 = Constant<value_ints=[0, 0, 8]>() "
HEADS = (
    NORMED
    + SHAPE
    + "q = MatMul(n, w_8_8) q4 = Reshape(q, s4) qh = Transpose<perm=[0, 2, 1, 3]>(q4) "
    "k = MatMul(n, v_8_8) k4 = Reshape(k, s4) kh = Transpose<perm=[0, 2, 3, 1]>(k4) "
    "v = MatMul(n, u_8_8) v4 = Reshape(v, s4) vh = Transpose<perm=[0, 2, 1, 3]>(v4) "
    "l = MatMul(qh, kh) a = Softmax<axis=-1>(l) m = MatMul(a, vh) "
    "mt = Transpose<perm=[0, 2, 1, 3]>(m) mf = Reshape(mt, s3) z = Add(t, mf) "
)
CLASS = (
    EMBED + "c = Concat<axis=1>(c_1_1_8, t) e = Add(c, p_1_10_8) "
    "n = LayerNormalization<axis=-1, epsilon=0.001>(e, w_8, b_8) i = Constant<value_int=0>() "
    "o = Gather<axis=1>(n, i) y = Gemm(o, w_8_3)"
)
NETWORKS = {
    "one head, mean of tokens": ONE_HEAD + HEAD,
    "two heads": HEADS + HEAD,
    "class token and positions": CLASS,
    "positions of an image": "p = Conv(x, w_5_4_2_2, b_5) e = Add(p, p_1_5_2_2) r = Relu(e) "
    "g = GlobalAveragePool(r) f = Flatten(g) y = Gemm(f, w_5_3)",
    "norm of the class token": EMBED + "i = Constant<value_int=0>() g = Gather<axis=1>(t, i) "
    "n = LayerNormalization<axis=-1>(g, w_8, b_8) y = Gemm(n, w_8_3)",
    "codes and values of one tensor": NORMED + "m = MatMul(t, v_8_8) z = Add(m, n) " + HEAD,
    "norm behind an activation": EMBED
    + "g = Relu(t) z = LayerNormalization<axis=-1>(g, w_8, b_8) "
    + HEAD,
    "norm of the input": "s = Constant<value_ints=[0, 4, 9]>() r = Reshape(x, s) "
    "t = Transpose<perm=[0, 2, 1]>(r) n = LayerNormalization<axis=-1>(t, w_4, b_4) "
    "z = MatMul(n, w_4_8) " + HEAD,
    "parts of the channels": NORMED + "a = MatMul(n, w_8_16) b = Add(a, b_16) "
    "c = Constant<value_ints=[0, 0, 2, 8]>() d = Reshape(b, c) i = Constant<value_int=0>() "
    "j = Constant<value_int=1>() q = Gather<axis=2>(d, i) k = Gather<axis=2>(d, j) "
    "kt = Transpose<perm=[0, 2, 1]>(k) l = MatMul(q, kt) a2 = Softmax<axis=-1>(l) "
    "m = MatMul(a2, k) z = Add(t, m) " + HEAD,
    "slices of the channels": NORMED + "b = MatMul(n, w_8_16) "
    "c = Constant<value_ints=[0, 0, 2, 8]>() d = Reshape(b, c) one = Constant<value_ints=[1]>() "
    "i = Constant<value_ints=[0]>() j = Constant<value_ints=[2]>() "
    "q4 = Slice(d, i, one, j) k4 = Slice(d, one, j, j) q = Squeeze(q4, j) k = Squeeze(k4, j) "
    "kt = Transpose<perm=[0, 2, 1]>(k) l = MatMul(q, kt) a2 = Softmax<axis=-1>(l) "
    "m = MatMul(a2, k) z = Add(t, m) " + HEAD,
}
CENTRED = "m = ReduceMean<axes=[-1]>(t) d = Sub(t, m) two = Constant<value_float=2.0>() "
ROOT = (
    "u = ReduceMean<axes=[2]>(v) k = Constant<value_float=0.01>() e = Add(u, k) root = Sqrt(e) "
    "n = Div(d, root) "
)
PIECES = {
    "Pow": CENTRED + "v = Pow(d, two) " + ROOT + "h = Mul(n, w_8) z = Add(h, b_8) ",
    "Mul": CENTRED + "v = Mul(d, d) " + ROOT + "h = Mul(w_8, n) z = Add(b_8, h) ",
}
OTHERS = {
    "mean of another axis": PIECES["Pow"].replace("axes=[2]", "axes=[1]"),
    "another power": PIECES["Pow"].replace("float=2.0", "float=4.0"),
    "another tensor's square": PIECES["Mul"].replace("Mul(d, d)", "Mul(t, t)"),
    "another tensor's mean": PIECES["Mul"]
    .replace("Sub(t, m)", "Sub(p2, m) ")
    .replace("m = Red", "p2 = Neg(t) m = Red"),
}
REFUSED = {
    EMBED + "i = Constant<value_int=3>() o = Gather<axis=1>(t, i) y = Gemm(o, w_8_3)": (
        "Gather_5: Gather of token 3; hwquant handles the first, 0, and parts of channels"
    ),
    EMBED + "a = Softmax<axis=1>(t) y = ReduceMean<axes=[1], keepdims=0>(a)": (
        "Softmax_4: Softmax over axis 1 of shape (1, 9, 8); inside the network hwquant handles"
    ),
    EMBED + "n = LayerNormalization<axis=1>(t, w_9_8, b_9_8) " + HEAD.replace("z", "n"): (
        "LayerNormalization_4: LayerNormalization from axis 1 of shape (1, 9, 8); hwquant handles"
    ),
    EMBED + "z = Concat<axis=1>(t, c_1_1_8) " + HEAD: (
        "Concat_4: Concat along axis 1 of constants and tensors of shape (1, 9, 8), (1, 1, 8)"
    ),
    EMBED + "tt = Transpose<perm=[0, 2, 1]>(t) m = MatMul(tt, t) y = Flatten(m)": (
        "MatMul_5: MatMul of two tensors of shape (1, 8, 9) and (1, 9, 8); hwquant handles, head"
    ),
    EMBED + SHAPE + "h = Reshape(t, s4) g = Transpose<perm=[0, 1, 3, 2]>(h) y = Flatten(g)": (
        "Flatten of channels that a Reshape took apart into (2, 4); hwquant handles"
    ),
}


def drawn(seed: int) -> tuple[QuantGraph, IntArray]:
    rng = np.random.default_rng(seed)
    graph = random_attention(rng)
    return graph, random_images(rng, graph, 3)


Kind = TypeVar("Kind", bound=AttentionLayer)


def one_of(kind: type[Kind]) -> tuple[QuantGraph, Kind]:
    graph, _ = drawn(0)
    return graph, next(layer for layer in graph.layers if isinstance(layer, kind))


# ---------------------------------------------------------------- import


@pytest.mark.parametrize("body", NETWORKS.values(), ids=NETWORKS)
def test_import_computes_what_onnx_computes(tmp_path: Path, body: str) -> None:
    assert_same_function(save(tmp_path, TOKENS, body, 2))


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
def test_a_norm_in_pieces_is_one_node(tmp_path: Path, pieces: str) -> None:
    graph = assert_same_function(save(tmp_path, TOKENS, EMBED + pieces + HEAD, 2, opset=12))
    (norm,) = (node for node in graph.nodes if isinstance(node, FloatLayerNorm))
    assert norm.epsilon == np.float32(0.01)


@pytest.mark.parametrize("pieces", OTHERS.values(), ids=OTHERS)
def test_pieces_of_something_else_are_no_norm(tmp_path: Path, pieces: str) -> None:
    with pytest.raises(UnsupportedModel, match="operator Sqrt is not supported"):
        load(save(tmp_path, TOKENS, EMBED + pieces + HEAD, 2, opset=12))


def test_import_of_a_trained_vit_computes_what_onnx_computes(shared: Path) -> None:
    graph = assert_same_function(shared / VIT)
    heads = [node for node in graph.nodes if isinstance(node, FloatMatMul)]
    assert [node.groups for node in heads] == [3] * 6
    assert [node.scale for node in heads] == [0.25, 1.0] * 3
    assert sum(isinstance(node, FloatLayerNorm) for node in graph.nodes) == 7
    assert all(node.groups == 3 for node in graph.nodes if isinstance(node, FloatSoftmax))


@pytest.mark.parametrize(("body", "message"), REFUSED.items())
def test_what_is_no_attention_is_refused_by_name(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(UnsupportedModel) as refusal:
        load(save(tmp_path, TOKENS, body, 2))
    assert message in str(refusal.value)


# ---------------------------------------------------------------- golden


@pytest.mark.parametrize("seed", SEEDS)
def test_golden_computes_what_semantics_says(seed: int) -> None:
    graph, images = drawn(seed)
    slow = slow_golden.run(graph, images)
    np.testing.assert_array_equal(golden.simulate(graph, images), slow["last"], f"seed {seed}")
    for name, tensor in golden.trace(graph, images[0]).items():
        np.testing.assert_array_equal(tensor, slow[name][0], f"{name}, seed {seed}")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_file_keeps_attention(tmp_path: Path, seed: int) -> None:
    graph, _ = drawn(seed)
    model_file.save(graph, tmp_path / "model.hwq")
    assert graphs_equal(model_file.load(tmp_path / "model.hwq"), graph), f"seed {seed}"


def test_square_root_is_exact_around_every_square() -> None:
    roots = np.concatenate(
        [np.arange(1, 1 << 16), (1 << 31) - 1 - np.arange(1000), 1 << np.arange(31)]
    )
    for step in (-1, 0, 1):
        squares = np.maximum(roots * roots + step, 1)
        expected = np.where(squares < roots * roots, roots - 1, roots)
        np.testing.assert_array_equal(square_root(squares), np.maximum(expected, 1))


def as_values(v: IntArray) -> IntArray:
    return v


@pytest.mark.parametrize("seed", range(50))
def test_normalized_deviations_are_within_their_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels, bits = int(rng.integers(1, 65)), int(rng.integers(2, 17))
    x = rng.integers(1 - (1 << bits - 1), 1 << bits - 1, (channels, 50, 1, 1))
    x //= rng.integers(1, 1 << bits - 1, (1, 50, 1, 1))  # some tokens hardly differ
    tensor = Tensor("n", channels, 50, 1, 1, x[:, 0, 0, 0] * 0, value_bits=20)
    ones, epsilon = np.ones(channels, np.int64), int(rng.integers(1, 100))
    layer = LayerNormLayer("n", "x", epsilon, ones, 0 * ones, 0, Saturate(20), 20, tensor)
    shares = attend(layer, as_values, {"x": x})
    deviations = channels * x - x.sum(axis=0)
    squares = (deviations**2).sum(axis=0) + epsilon
    bound = 0.5 + 2**16 / np.floor(np.sqrt(squares))
    exact = 2**16 * deviations / np.sqrt(squares)
    assert (np.abs(shares - exact) <= bound + 1e-6).all(), f"seed {seed}"


@pytest.mark.parametrize("seed", range(50))
def test_shares_of_a_softmax_are_within_their_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, top = 1 << int(rng.integers(0, 9)), int(rng.integers(12, 21))
    table = np.round(2.0 ** (top - np.arange(count) / count)).astype(np.int64)
    channels, one = int(rng.integers(1, 200)), int(rng.integers(1, 1 << 17))
    reach = int(rng.integers(1, 1 << 15))
    x = rng.integers(-reach, reach, (channels, 30, 1, 1))
    tensor = Tensor("p", channels, 30, 1, 1, x[:, 0, 0, 0] * 0, value_bits=24)
    layer = SoftmaxLayer("p", "x", 1, table, one, Saturate(24), 24, tensor)
    shares = attend(layer, as_values, {"x": x})
    powers = 2.0 ** ((x - x.max(axis=0)) / count)
    exact = one * powers / powers.sum(axis=0)
    assert np.abs(shares - exact).max() <= 0.5 + one * channels / 2**top + 1e-6, f"seed {seed}"


def test_exponentials_are_within_one_of_exact_ones() -> None:
    table = np.round(2.0 ** (20 - np.arange(256) / 256)).astype(np.int64)
    u = np.arange(256 * 24)
    tensor = Tensor("p", 2 * len(u), 1, 1, 1, np.zeros(2 * len(u), np.int64), value_bits=24)
    logits = np.stack([0 * u, -u], axis=1).reshape(-1, 1, 1, 1)
    layer = SoftmaxLayer("p", "x", len(u), table, 1 << 30, Saturate(24), 24, tensor)
    first, second = attend(layer, as_values, {"x": logits}).reshape(-1, 2).T
    found = second / first * 2**20  # the exponential of 0 is exact
    assert np.abs(found - 2.0 ** (20 - u / 256)).max() <= 1.001


# ---------------------------------------------------------------- records


def test_values_are_read_as_values_alone() -> None:
    graph, _ = drawn(0)
    mac = next(la for la in graph.layers if isinstance(la, MacLayer) and la.source != INPUT)
    moved = tuple(
        replace(la, source="patches") if la.name == mac.name else la for la in graph.layers
    )
    with pytest.raises(BadInput, match=f"{mac.name}: reads codes; patches has values"):
        replace(graph, layers=moved)


def test_a_layer_of_other_shape_is_refused() -> None:
    for kind in (MatMulLayer, SoftmaxLayer):
        graph, layer = one_of(kind)
        changed = tuple(replace(layer, groups=0) if la is layer else la for la in graph.layers)
        with pytest.raises(BadInput, match=rf"{layer.name}: \(.*make no"):
            replace(graph, layers=changed)


def test_a_wrong_table_of_exponentials_is_refused() -> None:
    _, layer = one_of(SoftmaxLayer)
    with pytest.raises(BadInput, match="exponentials must fall from a power of two to its half"):
        replace(layer, exponentials=np.array([8, 3]))
    with pytest.raises(BadInput, match=r"one=0 times \d+; permitted 56 bits"):
        replace(layer, one=0)


def test_a_layer_norm_whose_squares_overflow_is_refused() -> None:
    source = Tensor("x", 2000, 1, 1, 1, np.zeros(2000, np.int64), value_bits=16)
    ones, output = np.ones(2000, np.int64), replace(source, name="n")
    layer = LayerNormLayer("n", "x", 1, ones, ones, 0, Saturate(16), 20, output)
    with pytest.raises(BadInput, match="n: squares of 2000 values of 16 bits sum up to more than"):
        layer.check_sources([source])


def test_a_layer_norm_without_epsilon_is_refused() -> None:
    _, layer = one_of(LayerNormLayer)
    with pytest.raises(BadInput, match="epsilon=0; permitted 1 and up"):
        replace(layer, epsilon=0)


# ---------------------------------------------------------------- quantize and refuse


@pytest.mark.parametrize("body", NETWORKS.values(), ids=NETWORKS)
def test_fine_integers_follow_the_float_network(tmp_path: Path, body: str) -> None:
    path = save(tmp_path, TOKENS, body, 2)
    graph = load(path)
    config = QuantConfig(weight_bits=8, act_bits=8, method="uniform", mean=(128.0,), std=(64.0,))
    quantized = quantize(graph, config)
    images = np.random.default_rng(1).integers(0, 256, (200, 4, 3, 3))
    values = golden.simulate(quantized, images)[:, :, 0, 0]
    real = float_outputs(path, graph.layout, normalise(images, (128.0,), (64.0,)), lambda _: None)
    ours, theirs = (part - part.mean(axis=1, keepdims=True) for part in (values, real))
    likeness = (ours * theirs).sum() / np.sqrt((ours**2).sum() * (theirs**2).sum())
    assert likeness > 0.99, likeness


def test_the_choice_of_a_token_costs_no_layer(tmp_path: Path) -> None:
    layers = lower(load(save(tmp_path, TOKENS, NETWORKS["class token and positions"], 2)))
    assert [type(layer).__name__ for layer in layers] == [
        "FloatMac",
        "FloatEmbedding",
        "FloatLayerNorm",
        "FloatMac",
    ]


@pytest.mark.parametrize(("weight_bits", "floor"), [(4, 0.83), (8, 0.84)])
def test_trained_vit_keeps_its_accuracy(shared: Path, weight_bits: int, floor: float) -> None:
    quantized = quantize(load(shared / VIT), replace(FASHION, weight_bits=weight_bits))
    data = np.load(shared / "models/fashion_mnist.npz")
    images = data["x"][:500].reshape(500, 1, 28, 28).astype(np.int64)
    values = golden.simulate(quantized, images)[:, :, 0, 0]
    assert (values.argmax(axis=1) == data["y"][:500]).mean() >= floor


def test_hardware_for_attention_is_refused_by_name(tmp_path: Path) -> None:
    graph, _ = drawn(1)
    with pytest.raises(
        UnsupportedModel, match=r"embedding: attention is computed in golden only so far$"
    ):
        schedule(graph, Plan(4, 4, 2))
    path = save(tmp_path, TOKENS, NETWORKS["two heads"], 2)
    for plan in (("--rows", "4", "--cols", "4"), ("--device", "lfe5u-25f")):
        result = hwquant("gen", path, "-o", tmp_path / "build", *plan)
        assert_refused(result, "attention is computed in golden only so far")
    assert not (tmp_path / "build").exists()


def test_eval_measures_a_transformer(tmp_path: Path) -> None:
    path = save(tmp_path, TOKENS, NETWORKS["class token and positions"], 2)
    images = np.random.default_rng(2).integers(0, 256, (12, 4, 3, 3)).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x=images, y=np.arange(12) % 3, layout="NCHW")
    result = hwquant("eval", path, "--data", tmp_path / "data.npz", "--json")
    assert result.exit_code == 0, result.stderr
