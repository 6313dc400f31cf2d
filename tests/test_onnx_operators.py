"""Every operator, alone or with its neighbours, computes what ONNX Runtime computes."""

from pathlib import Path

import pytest

from hwquant.float_graph import FloatConv
from hwquant.ir import INPUT
from tests.onnx_models import assert_same_function, save

NCHW, NF = "float[N, 3, 9, 8]", "float[N, 10]"
IMAGES = {
    "symmetric pads": "y = Conv<pads=[1,1,1,1]>(x, w_4_3_3_3, b_4)",
    "asymmetric pads": "y = Conv<pads=[0,1,2,3]>(x, w_4_3_3_3)",
    "rectangular kernel and stride": "y = Conv<strides=[2,3]>(x, w_4_3_2_4)",
    "dilation of one row": "y = Conv<dilations=[3,1]>(x, w_4_3_1_4)",
    "dilation": "y = Conv<dilations=[2,3], strides=[2,1], pads=[1,2,3,0]>(x, w_4_3_3_2, b_4)",
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
    "ceil_mode": "y = MaxPool<kernel_shape=[3,2], strides=[3,3], ceil_mode=1, pads=[1,0,0,0]>(x)",
    "ceil_mode on both sides": "y = MaxPool<kernel_shape=[2,3], strides=[2,2], ceil_mode=1>(x)",
    "ceil_mode of padding alone": "y = MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1, "
    "pads=[1,0,0,0]>(x)",
    "Pad of channels last": "t = Transpose<perm=[0,2,3,1]>(x) "
    "p = Constant<value_ints=[0,1,2,0,0,0,3,0]>() q = Pad(t, p) "
    "u = Transpose<perm=[0,3,1,2]>(q) y = Conv(u, w_4_3_3_3)",
    "Pad among channels last": "t = Transpose<perm=[0,2,3,1]>(x) "
    "p = Constant<value_ints=[0,0,0,1,0,0,0,2]>() q = Pad(t, p) y = Transpose<perm=[0,3,1,2]>(q)",
    "Sum": "c = Conv(x, w_3_3_1_1) r = Relu(x) y = Sum(x, c, r)",
    "Sum of one": "s = Sum(x) y = Relu(s)",
    "Sub": "c = Conv<pads=[1,1,1,1]>(x, w_3_3_3_3) d = Sub(x, c) r = Relu(d) y = Sub(r, x)",
    "ReduceSum": "a = Constant<value_ints=[2,3]>() s = ReduceSum(x, a) y = Conv(s, w_4_3_1_1)",
    "SELU": "c = Conv(x, w_4_3_3_3) y = Selu(c)",
    "PRelu with a slope a channel": "c = Conv(x, w_4_3_3_3) y = PRelu(c, slope_4_1_1)",
    "PRelu that grows below 0": "s = Constant<value=float[1] {-1.5}>() y = PRelu(x, s)",
    "Split of channels": "r = Relu(x) s = Constant<value_ints=[1,2]>() a, b = Split<axis=1>(r, s) "
    "c = Conv(b, w_4_2_1_1) y = Concat<axis=1>(a, c)",
    "Slice of channels": "r = Relu(x) z = Constant<value_ints=[-2]>() "
    "e = Constant<value_ints=[99]>() a = Constant<value_ints=[-3]>() y = Slice(r, z, e, a)",
    "shuffle": "c = Conv(x, w_6_3_3_3) r = Relu(c) s = Constant<value_ints=[0,2,3,7,6]>() "
    "p = Reshape(r, s) t = Transpose<perm=[0,2,1,3,4]>(p) k = Constant<value_ints=[0,6,7,6]>() "
    "y = Reshape(t, k)",
    "shuffle of a linear layer": "c = Conv(x, w_6_3_3_3) s = Constant<value_ints=[0,3,2,42]>() "
    "p = Reshape(c, s) t = Transpose<perm=[0,2,1,3]>(p) k = Constant<value_ints=[0,6,7,6]>() "
    "y = Reshape(t, k)",
    "shuffle with channels last": "r = Relu(x) t = Transpose<perm=[0,2,3,1]>(r) "
    "c = Concat<axis=3>(t, t) s = Constant<value_ints=[0,9,8,2,3]>() p = Reshape(c, s) "
    "u = Transpose<perm=[0,1,2,4,3]>(p) k = Constant<value_ints=[0,9,8,6]>() v = Reshape(u, k) "
    "y = Transpose<perm=[0,3,1,2]>(v)",
    "idle ceil_mode": "y = AveragePool<kernel_shape=[3,2], strides=[3,2], ceil_mode=1>(x)",
    "GlobalAveragePool": "y = GlobalAveragePool(x)",
    "GlobalMaxPool": "y = GlobalMaxPool(x)",
    "ReduceMean": "y = ReduceMean<axes=[2,-1]>(x)",
    "ReduceMean of rows": "y = ReduceMean<axes=[2]>(x)",
    "ReduceMax of columns": "m = ReduceMax<axes=[3]>(x) y = Relu(m)",
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
    "Softmax, then Identity and Reshape": "c = Gemm(x, w_10_4) s = Softmax(c) i = Identity(s) "
    "k = Constant<value_ints=[-1,4]>() y = Reshape(i, k)",
}
FLATTENED = {
    "Flatten": "f = Flatten(x) y = Gemm(f, w_216_5, b_5)",
    "Reshape": "s = Constant<value_ints=[0,-1]>() f = Reshape(x, s) y = MatMul(f, w_216_5)",
    "pool and Squeeze": "g = GlobalAveragePool(x) a = Constant<value_ints=[2,3]>() "
    "f = Squeeze(g, a) y = MatMul(f, w_3_5)",
    "mean without keepdims": "f = ReduceMean<axes=[2,3], keepdims=0>(x) y = MatMul(f, w_3_5)",
    "mean of rows, then of columns": "r = ReduceMean<axes=[2], keepdims=0>(x) "
    "f = ReduceMean<axes=[2], keepdims=0>(r) y = MatMul(f, w_3_5)",
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
