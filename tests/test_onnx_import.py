"""Imported networks compute what ONNX Runtime computes; all others are refused by name."""

import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwquant.errors import BadInput
from hwquant.float_graph import FloatActivation, FloatConv, FloatGraph, FloatShortcut, Relu
from hwquant.ir import INPUT
from hwquant.onnx_import import load
from tests.onnx_models import assert_same_function, constants, save

REAL = (
    "fmnist_densenet",
    "fmnist_silu_se",
    "cifar10_cnn_gelu",
    "mlperf_kws_dscnn",
    "mlperf_sww",
    "mlperf_vww_mobilenetv1",
    "efficientnet_lite0_imagenet",
    "ppocr_cls",
    "mlperf_ic_resnet8",
    "mnist_cnn_cntk",
    "jets_hls4ml_3layer",
    "mlperf_ad_autoencoder",
    "resnet20_cifar10",
    "resnet32_cifar10",
    "resnet56_cifar10",
    "resnet20_cifar10_dynamo",
)
SHAPES = {"ppocr_cls": (3, 48, 192)}  # what the network leaves open
SHARP = {"mlperf_sww"}  # noise of spread 1 saturates its Softmax
NCHW, NHWC, NF = "float[N, 3, 9, 8]", "float[N, 9, 8, 3]", "float[N, 10]"


@pytest.mark.parametrize("name", REAL)
def test_real_network_is_the_same_function(shared: Path, name: str) -> None:
    path, is_softmax = shared / "models" / f"{name}.onnx", name in SHARP
    graph = assert_same_function(path, SHAPES.get(name), spread=0.1 if is_softmax else 1.0)
    assert graph.output == graph.nodes[-1].name
    assert set(graph.shapes) == {INPUT, *(node.name for node in graph.nodes)}
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", node.name) for node in graph.nodes)


IMAGES = {
    "symmetric pads": "y = Conv<pads=[1,1,1,1]>(x, w_4_3_3_3, b_4)",
    "asymmetric pads": "y = Conv<pads=[0,1,2,3]>(x, w_4_3_3_3)",
    "rectangular kernel and stride": "y = Conv<strides=[2,3]>(x, w_4_3_2_4)",
    "dilation of one row": "y = Conv<dilations=[3,1]>(x, w_4_3_1_4)",
    "SAME_UPPER": 'y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w_4_3_2_5)',
    "SAME_LOWER": 'y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w_4_3_2_5)',
    "SAME_LOWER stride 1": 'y = Conv<auto_pad="SAME_LOWER">(x, w_4_3_4_2)',
    "depthwise": "y = Conv<group=3, pads=[1,1,1,1]>(x, w_3_1_3_3, b_3)",
    "depthwise with two a channel": "y = Conv<group=3, strides=[2,1]>(x, w_6_1_3_2)",
    "grouped": "c = Conv(x, w_4_3_1_1) y = Conv<group=2>(c, w_6_2_3_3, b_6)",
    "batch norm of a grouped Conv": "c = Conv<group=3>(x, w_6_1_3_3) "
    "y = BatchNormalization(c, gamma_6, beta_6, mean_6, variance_6)",
    "VALID": 'y = Conv<auto_pad="VALID", strides=[2,1]>(x, w_4_3_3_3)',
    "Pad before Conv": "p = Constant<value_ints=[0,0,1,2,0,0,0,1]>() q = Pad(x, p) "
    "y = Conv<strides=[2,2]>(q, w_4_3_3_3)",
    "Pad around, then pads": "p = Constant<value_ints=[0,0,0,1,0,0,2,0]>() q = Pad(x, p) "
    "i = Identity(q) y = Conv<strides=[2,2], pads=[1,0,0,3]>(i, w_4_3_3_3)",
    "Pad before SAME": "p = Constant<value_ints=[0,0,2,1,0,0,2,0]>() q = Pad(x, p) "
    'y = Conv<strides=[2,2], auto_pad="SAME_UPPER">(q, w_4_3_3_3)',
    "Pad read by two": "p = Constant<value_ints=[0,0,1,1,0,0,1,1]>() q = Pad(x, p) "
    "c = Conv(q, w_3_3_3_3) d = Conv(q, w_2_3_3_3) y = Concat<axis=1>(c, d)",
    "bias as Add": "c = Conv(x, w_4_3_3_3) y = Add(b_1_4_1_1, c)",
    "bias as Sub": "c = Conv(x, w_4_3_3_3, b_4) y = Sub(c, b_4_1_1)",
    "scalar bias": "c = Conv(x, w_4_3_3_3) s = Constant<value_float=2.5>() y = Add(c, s)",
    "scales": "c = Conv(x, w_4_3_3_3, b_4) m = Mul(s_1_4_1_1, c) y = Div(m, d_4_1_1)",
    "batch norm": "c = Conv(x, w_4_3_3_3, b_4) "
    "y = BatchNormalization<epsilon=0.01>(c, gamma_4, beta_4, mean_4, variance_4)",
    "Relu": "c = Conv(x, w_4_3_3_3) y = Relu(c)",
    "Clip to 6": "c = Conv(x, w_4_3_3_3) l = Constant<value_float=0.0>() "
    "h = Constant<value_float=6.0>() y = Clip(c, l, h)",
    "Clip without maximum": "l = Constant<value_float=0.0>() y = Clip(x, l)",
    "residual": "c = Conv(x, w_4_3_3_3) r = Relu(c) d = Conv<pads=[1,1,1,1]>(r, w_4_4_3_3) "
    "y = Add(d, r)",
    "MaxPool": "y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,0,1,2]>(x)",
    "MaxPool SAME": 'y = MaxPool<kernel_shape=[2,3], strides=[2,2], auto_pad="SAME_LOWER">(x)',
    "AveragePool": "y = AveragePool<kernel_shape=[3,2], strides=[3,1]>(x)",
    "AveragePool with pads": "y = AveragePool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,2,1], "
    "count_include_pad=1>(x)",
    "Pad before AveragePool": "p = Constant<value_ints=[0,0,1,1,0,0,0,1]>() q = Pad(x, p) "
    "r = Identity(q) y = AveragePool<kernel_shape=[3,3], strides=[2,2]>(r)",
    "Pad before MaxPool": "r = Relu(x) p = Constant<value_ints=[0,0,1,1,0,0,1,1]>() "
    "q = Pad(r, p) y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(q)",
    "idle ceil_mode": "y = AveragePool<kernel_shape=[3,2], strides=[3,2], ceil_mode=1>(x)",
    "GlobalAveragePool": "y = GlobalAveragePool(x)",
    "GlobalMaxPool": "y = GlobalMaxPool(x)",
    "ReduceMean": "y = ReduceMean<axes=[2,-1]>(x)",
    "ReduceMax": "m = ReduceMax<axes=[2,3]>(x) y = Relu(m)",
    "Slice": "z = Constant<value_ints=[0,-9]>() e = Constant<value_ints=[99,99]>() "
    "a = Constant<value_ints=[3,2]>() s = Constant<value_ints=[2,2]>() y = Slice(x, z, e, a, s)",
    "Slice and Pad": "z = Constant<value_ints=[0,0]>() e = Constant<value_ints=[99,99]>() "
    "a = Constant<value_ints=[2,3]>() s = Constant<value_ints=[2,2]>() k = Slice(x, z, e, a, s) "
    "p = Constant<value_ints=[0,1,0,0,0,3,0,0]>() y = Pad(k, p)",
    "Identity and Dropout": "i = Identity(x) d = Dropout(i) y = Conv(d, w_4_3_3_3)",
    "constant minus Conv": "c = Conv(x, w_4_3_3_3) y = Sub(c_4_1_1, c)",
    "batch norm of the input": "y = BatchNormalization(x, gamma_3, beta_3, mean_3, variance_3)",
    "scale of the input": "y = Mul(x, s_1_3_1_1)",
    "batch norm before ReLU": "c = Conv(x, w_4_3_3_3) r = Relu(c) "
    "n = BatchNormalization(r, gamma_4, beta_4, mean_4, variance_4) s = Relu(n) "
    "y = Conv(s, w_2_4_1_1)",
    "batch norm of a tensor in use": "c = Conv(x, w_4_3_3_3) "
    "n = BatchNormalization(c, gamma_4, beta_4, mean_4, variance_4) m = Mul(n, s_4_1_1) "
    "y = Add(m, c)",
    "batch norm of a pool": "c = MaxPool<kernel_shape=[2,2]>(x) "
    "y = BatchNormalization(c, gamma_3, beta_3, mean_3, variance_3)",
    "NHWC bias of a tensor in use": "c = Conv(x, w_4_3_3_3) t = Transpose<perm=[0,2,3,1]>(c) "
    "s = Add(t, b_4) r = Relu(c) u = Transpose<perm=[0,3,1,2]>(s) y = Add(u, r)",
    "Concat": "c = Conv<pads=[1,1,1,1]>(x, w_4_3_3_3) r = Relu(c) y = Concat<axis=1>(r, x, c)",
    "Concat of Concat": "c = Conv(x, w_4_3_1_1) a = Concat<axis=1>(x, c) "
    "n = BatchNormalization(a, gamma_7, beta_7, mean_7, variance_7) r = Relu(n) "
    "d = Conv(r, w_2_7_1_1) y = Concat<axis=-3>(a, d)",
    "Concat of one channel": "c = Conv(x, w_1_3_1_1) d = Conv(x, e_1_3_1_1) "
    "y = Concat<axis=1>(c, d)",
    "Concat NHWC": "t = Transpose<perm=[0,2,3,1]>(x) r = Relu(t) a = Concat<axis=3>(r, t) "
    "y = Transpose<perm=[0,3,1,2]>(a)",
    "gate": "g = GlobalAveragePool(x) c = Conv(g, w_3_3_1_1) s = Sigmoid(c) y = Mul(x, s)",
    "gate first": "c = Conv(x, w_4_3_3_3) r = Relu(c) g = ReduceMean<axes=[2,3]>(r) "
    "s = HardSigmoid(g) m = Mul(s, r) y = Relu(m)",
    "gate of Gemm": "g = GlobalAveragePool(x) f = Flatten(g) d = Gemm(f, w_3_2, b_2) r = Relu(d) "
    "e = Gemm(r, w_2_3, c_3) s = Sigmoid(e) k = Constant<value_ints=[0,3,1,1]>() "
    "u = Reshape(s, k) y = Mul(x, u)",
    "gate NHWC": "t = Transpose<perm=[0,2,3,1]>(x) g = ReduceMean<axes=[1,2]>(t) s = Sigmoid(g) "
    "m = Mul(t, s) y = Transpose<perm=[0,3,1,2]>(m)",
    "gate without activation": "r = Relu(x) g = GlobalAveragePool(r) y = Mul(r, g)",
    "NHWC inside": "t = Transpose<perm=[0,2,3,1]>(x) r = Relu(t) "
    "u = Transpose<perm=[0,3,1,2]>(r) y = Conv(u, w_4_3_3_3)",
    "NHWC bias": "c = Conv(x, w_4_3_3_3) t = Transpose<perm=[0,2,3,1]>(c) s = Add(t, b_4) "
    "y = Transpose<perm=[0,3,1,2]>(s)",
}
VECTORS = {
    "Gemm": "y = Gemm<alpha=0.5, beta=2.0>(x, w_10_4, b_4)",
    "transposed Gemm": "y = Gemm<transB=1>(x, w_4_10)",
    "scalar bias": "y = Gemm<transB=1>(x, w_4_10, b_1)",
    "MatMul": "y = MatMul(x, w_10_4)",
    "MatMul and Add": "m = MatMul(x, w_10_4) y = Add(m, b_4)",
    "batch norm": "c = Gemm(x, w_10_4) "
    "y = BatchNormalization(c, gamma_4, beta_4, mean_4, variance_4)",
    "batch norm as Mul and Add": "c = Gemm(x, w_10_4, b_4) m = Mul(c, s_4) y = Add(m, a_4)",
    "weights in a node": "k = Constant<value=float[10,1] {1,2,3,4,5,6,7,8,9,-9}>() "
    "y = MatMul(x, k)",
    "Softmax": "c = Gemm(x, w_10_4) y = Softmax<axis=-1>(c)",
    "Concat": "c = Gemm(x, w_10_4) d = Gemm(x, w_10_3) y = Concat<axis=1>(c, d)",
    "LogSoftmax": "c = Gemm(x, w_10_4) y = LogSoftmax<axis=1>(c)",
    "Sigmoid": "c = Gemm(x, w_10_4) y = Sigmoid(c)",
}
FLATTENED = {
    "Flatten": "f = Flatten(x) y = Gemm(f, w_216_5, b_5)",
    "Reshape": "s = Constant<value_ints=[0,-1]>() f = Reshape(x, s) y = MatMul(f, w_216_5)",
    "pool and Squeeze": "g = GlobalAveragePool(x) a = Constant<value_ints=[2,3]>() "
    "f = Squeeze(g, a) y = MatMul(f, w_3_5)",
    "mean without keepdims": "f = ReduceMean<axes=[2,3], keepdims=0>(x) y = MatMul(f, w_3_5)",
    "NHWC": "t = Transpose<perm=[0,2,3,1]>(x) f = Flatten(t) y = Gemm(f, w_216_5)",
    "NHWC mean": "t = Transpose<perm=[0,2,3,1]>(x) f = ReduceMean<axes=[1,2], keepdims=0>(t) "
    "y = MatMul(f, w_3_5)",
    "NWHC": "t = Transpose<perm=[0,3,2,1]>(x) f = Flatten(t) y = Gemm(f, w_216_5)",
    "vector seen as image": "m = GlobalMaxPool(x) f = Flatten(m) g = Gemm(f, w_3_5) "
    "a = Constant<value_ints=[2,3]>() u = Unsqueeze(g, a) c = Conv(u, w_6_5_1_1) y = Flatten(c)",
}


@pytest.mark.parametrize("claim", IMAGES)
def test_image_operator_is_the_same_function(tmp_path: Path, claim: str) -> None:
    assert_same_function(save(tmp_path, NCHW, IMAGES[claim], rank=4))


@pytest.mark.parametrize("claim", VECTORS)
def test_vector_operator_is_the_same_function(tmp_path: Path, claim: str) -> None:
    assert assert_same_function(save(tmp_path, NF, VECTORS[claim], rank=2)).layout == "NF"


@pytest.mark.parametrize("claim", FLATTENED)
def test_flattened_network_is_the_same_function(tmp_path: Path, claim: str) -> None:
    graph = assert_same_function(save(tmp_path, NCHW, FLATTENED[claim], rank=2))
    assert isinstance(graph.nodes[-1], FloatConv)


def test_channels_last_input_is_the_same_function(tmp_path: Path) -> None:
    body = (
        "t = Transpose<perm=[0,3,1,2]>(x) c = Conv<strides=[2,2]>(t, w_4_3_3_3) r = Relu(c) "
        "u = Transpose<perm=[0,2,3,1]>(r) s = Constant<value_ints=[-1,48]>() f = Reshape(u, s) "
        "y = MatMul(f, w_48_5)"
    )
    graph = assert_same_function(save(tmp_path, NHWC, body, rank=2))
    assert (graph.layout, graph.shapes[INPUT]) == ("NHWC", (3, 9, 8))


SEQUENCES = {
    "Conv": "y = Conv<pads=[1,2], strides=[2]>(x, w_4_6_3, b_4)",
    "depthwise": "c = Conv<group=6>(x, w_6_1_5) n = BatchNormalization(c, g_6, b_6, m_6, "
    "variance_6) r = Relu(n) y = Conv<dilations=[1]>(r, w_4_6_1)",
    "batch norm of a sequence": "y = BatchNormalization(x, g_6, b_6, m_6, variance_6)",
    "SAME": 'y = Conv<auto_pad="SAME_LOWER", strides=[3]>(x, w_4_6_4)',
    "Pad": "p = Constant<value_ints=[0,0,3,0,0,0]>() q = Pad(x, p) y = Conv(q, w_4_6_4)",
    "Pad of channels": "p = Constant<value_ints=[0,1,0,0,2,0]>() y = Pad(x, p)",
    "MaxPool": "y = MaxPool<kernel_shape=[3], strides=[2], pads=[1,1]>(x)",
    "AveragePool": "y = AveragePool<kernel_shape=[4], strides=[2]>(x)",
    "gate": "g = GlobalAveragePool(x) s = Sigmoid(g) m = Mul(x, s) y = Concat<axis=1>(m, x)",
    "as image": "a = Constant<value_ints=[2]>() u = Unsqueeze(x, a) c = Conv(u, w_4_6_1_3) "
    "y = Squeeze(c, a)",
}


@pytest.mark.parametrize("claim", SEQUENCES)
def test_sequence_is_the_same_function_as_an_image_of_one_row(tmp_path: Path, claim: str) -> None:
    graph = assert_same_function(save(tmp_path, "float[N, 6, 16]", SEQUENCES[claim], rank=3))
    assert (graph.layout, graph.shapes[INPUT]) == ("NCW", (6, 1, 16))


@pytest.mark.parametrize(
    ("body", "layout"),
    [
        ("t = Transpose<perm=[0,2,1]>(x) c = Conv(t, w_4_6_3) y = GlobalMaxPool(c)", "NWC"),
        ("c = Conv(x, w_4_16_3) y = Relu(c)", "NCW"),
        (
            (
                "a = Constant<value_ints=[0,1,16,6]>() r = Reshape(x, a) "
                "t = Transpose<perm=[0,3,1,2]>(r) "
                "c = Conv(t, w_4_6_1_3) b = Constant<value_ints=[2]>() y = Squeeze(c, b)"
            ),
            "NWC",
        ),
    ],
)
def test_sequence_with_channels_last_is_told_by_what_moves_them(
    tmp_path: Path, body: str, layout: str
) -> None:
    graph = assert_same_function(save(tmp_path, "float[N, 16, 6]", body, rank=3))
    assert graph.layout == layout


def test_open_sizes_are_fixed_by_the_caller(tmp_path: Path) -> None:
    path = save(tmp_path, "float[N, 3, h, w]", "c = Conv(x, w_4_3_3_3) y = Relu(c)", rank=4)
    assert assert_same_function(path, (3, 7, 5)).shapes[INPUT] == (3, 7, 5)
    for shape, words in (
        ((4, 7, 5), "--input-shape: dimension 1 of input 'x' is 3, not 4"),
        ((7, 5), "--input-shape has 2 numbers; input 'x' has 3 dimensions besides the batch"),
        ((3, 0, 5), "input 'x': dimension 2 has size 0"),
    ):
        with pytest.raises(BadInput, match=re.escape(words)):
            load(path, shape)


def test_what_cannot_be_folded_keeps_its_moments(tmp_path: Path) -> None:
    graph = assert_same_function(save(tmp_path, NCHW, IMAGES["batch norm before ReLU"], rank=4))
    norm = graph.nodes[2]
    assert isinstance(norm, FloatConv)
    assert norm.moments is not None
    assert (norm.groups, norm.weight.shape) == (4, (4, 1, 1, 1))
    beta = constants("beta_4")["beta_4"]
    np.testing.assert_allclose(norm.moments.mean, beta)


def test_one_channel_reshaped_to_the_front_is_channels_last(tmp_path: Path) -> None:
    body = "s = Constant<value_ints=[-1,1,9,8]>() t = Reshape(x, s) y = Conv(t, w_4_1_3_3)"
    graph = assert_same_function(save(tmp_path, "float[N, 9, 8, 1]", body, rank=4))
    assert (graph.layout, graph.shapes[INPUT]) == ("NHWC", (1, 9, 8))


def test_flattened_input_with_few_last_channels_is_channels_last(tmp_path: Path) -> None:
    body = "f = Flatten(x) y = Gemm(f, w_216_5)"
    assert assert_same_function(save(tmp_path, NHWC, body, rank=2)).layout == "NHWC"


def test_older_and_newer_opsets_are_the_same_function(tmp_path: Path) -> None:
    clip = "y = Clip<min=0.0, max=6.0>(x)"
    graph = assert_same_function(save(tmp_path, NCHW, clip, rank=4, opset=10))
    assert graph.nodes == (FloatActivation("clip_0", INPUT, Relu(6.0)),)
    sliced = "s = Slice<starts=[0], ends=[99], axes=[2]>(x) y = Pad<pads=[0,2,0,0,0,1,0,0]>(s)"
    graph = assert_same_function(save(tmp_path, NCHW, sliced, rank=4, opset=9))
    assert graph.nodes == (FloatShortcut("pad_1", INPUT, (1, 1), 6, 2),)
    mean = "a = Constant<value_ints=[3,2]>() y = ReduceMean<keepdims=0>(x, a)"
    assert_same_function(save(tmp_path, NCHW, mean, rank=2, opset=18))


def test_slice_and_pad_become_one_shortcut(tmp_path: Path) -> None:
    graph = load(save(tmp_path, NCHW, IMAGES["Slice and Pad"], rank=4))
    assert graph.nodes == (FloatShortcut(graph.output, INPUT, (2, 2), 7, 1),)
    assert graph.shapes == {INPUT: (3, 9, 8), graph.output: (7, 5, 4)}


def only_layer(graph: FloatGraph) -> FloatConv:
    (layer,) = graph.nodes
    assert isinstance(layer, FloatConv)
    return layer


def test_batch_norm_tells_the_moments_and_later_constants_move_them(tmp_path: Path) -> None:
    body = IMAGES["batch norm"].replace("y =", "n =")
    moved = f"{body} m = Mul(n, s_1_4_1_1) y = Add(m, a_1_4_1_1)"
    values = constants(moved)
    plain = only_layer(load(save(tmp_path, NCHW, IMAGES["batch norm"], rank=4))).moments
    after = only_layer(assert_same_function(save(tmp_path, NCHW, moved, rank=4))).moments
    assert plain is not None
    assert after is not None
    scale, shift = values["s_1_4_1_1"].reshape(4), values["a_1_4_1_1"].reshape(4)
    assert min(*scale, *values["gamma_4"]) < 0, "draw other constants"
    np.testing.assert_allclose(plain.mean, values["beta_4"], rtol=1e-12)
    np.testing.assert_allclose(plain.std, abs(values["gamma_4"]), rtol=1e-12)
    np.testing.assert_allclose(after.mean, values["beta_4"] * scale + shift, rtol=1e-6)
    np.testing.assert_allclose(after.std, abs(values["gamma_4"] * scale), rtol=1e-6)
    assert only_layer(load(save(tmp_path, NCHW, IMAGES["bias as Add"], rank=4))).moments is None


def test_zero_channel_double_weights_and_local_functions_are_allowed(tmp_path: Path) -> None:
    weight = constants("w_4_3_3_3")["w_4_3_3_3"]
    weight[2] = 0
    body = "y = Conv(x, w_4_3_3_3)"
    path = save(tmp_path, NCHW, body, rank=4, given={"w_4_3_3_3": weight})
    np.testing.assert_array_equal(only_layer(assert_same_function(path)).weight, weight)
    double = {"k": constants("w_10_4")["w_10_4"].astype(np.float64)}
    path = save(tmp_path, "double[N, 10]", "y = MatMul(x, k)", rank=2, given=double)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    onnx.save(model, path)
    np.testing.assert_array_equal(
        only_layer(assert_same_function(path)).weight[..., 0, 0], double["k"].T
    )
    model = onnx.load(save(tmp_path, NCHW, "y = mine.twice(x)", rank=4))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Add", ["b", "b"], ["c"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("mine", "twice", ["a"], ["c"], body, opsets))
    onnx.save(model, path)
    assert_same_function(path)


def test_names_are_short_and_unique_and_never_the_input(tmp_path: Path) -> None:
    body = (
        "a = Conv(x, w_4_3_3_3) b = Relu(a) c = Conv(b, w_4_4_3_3) d = Relu(c) "
        "e = GlobalAveragePool(d) f = Flatten(e) g = MatMul(f, w_4_5) y = Add(g, b_5)"
    )
    path = save(tmp_path, NCHW, body, rank=2)

    def names(given: str) -> str:
        model = onnx.load(path)
        for node, name in zip(model.graph.node, given.split(","), strict=True):
            node.name = name
        onnx.save(model, path)
        graph = load(path)
        assert set(graph.shapes) == {INPUT, *(node.name for node in graph.nodes)}
        return " ".join(node.name for node in graph.nodes)

    torch = "/l1/l1.0/conv1/Conv,/l1/l1.0/Relu,/l1/l1.1/Conv,/l1/l1.0/relu,/p/Pool,/F"
    assert names(f"{torch},/fc/MatMul,/fc/Add") == "l1_0_conv1 l1_0_relu l1_1 l1_0_relu_2 p_pool fc"
    keras = "m/c/BiasAdd,m/a/Relu,m/c_1/BiasAdd,m/a_1/Relu,m/pool/Mean,m/f/Reshape"
    assert names(f"{keras},m/d/MatMul,m/d/BiasAdd") == "c a_relu c_1 a_1_relu pool_mean d"
    assert names("input,Input,0.1,,/,-,matmul,m/a-b;c") == (
        "conv_input relu_input conv_0_1 relu_0 globalaveragepool_4 m_a_b_c"
    )


def test_graph_bears_the_file_name_and_hash_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path, NF, VECTORS["Softmax"], rank=2).rename(tmp_path / "my.net.onnx")
    graph = load(path)
    assert graph.name == "my.net"
    assert graph.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert graph.notes == (
        "the final Softmax (Softmax_1) was dropped; it keeps the outputs' order",
    )
    assert capfd.readouterr() == ("", "")


def test_network_fixed_at_another_batch_is_the_same_function(tmp_path: Path) -> None:
    model = onnx.load(save(tmp_path, NCHW, FLATTENED["Flatten"], rank=2))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, tmp_path / "fixed.onnx")
    assert load(tmp_path / "fixed.onnx").shapes["gemm_1"] == (5, 1, 1)
