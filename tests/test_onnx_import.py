"""Imported networks compute what ONNX Runtime computes; all others are refused by name."""

import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwquant.accuracy import float_outputs
from hwquant.errors import BadInput
from hwquant.float_graph import FloatActivation, FloatConv, FloatGraph, FloatShortcut, Relu
from hwquant.importer.load import load
from hwquant.ir import INPUT
from tests.float_model import evaluate
from tests.onnx_models import assert_same_function, constants, save
from tests.test_onnx_operators import FLATTENED, IMAGES, VECTORS

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
HALVED = (
    "h = Cast<to=10>(x) c = Conv(h, w_4_3_3_3, b_4) v = Mul(c, root) e = Erf(v) p = Add(e, one) "
    "m = Mul(c, p) g = Mul(m, half) y = Conv(g, w_2_4_3_3)"
)
HALF_NUMBERS = {
    name: np.array(value, np.float32)
    for name, value in {"root": 2**-0.5, "one": 1.0, "half": 0.5}.items()
}
NCHW, NHWC, NF = "float[N, 3, 9, 8]", "float[N, 9, 8, 3]", "float[N, 10]"


@pytest.mark.parametrize("name", REAL)
def test_real_network_is_the_same_function(shared: Path, name: str) -> None:
    path, is_softmax = shared / "models" / f"{name}.onnx", name in SHARP
    graph = assert_same_function(path, SHAPES.get(name), spread=0.1 if is_softmax else 1.0)
    assert graph.output == graph.nodes[-1].name
    assert set(graph.shapes) == {INPUT, *(node.name for node in graph.nodes)}
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", node.name) for node in graph.nodes)


def test_half_precision_is_the_same_network_with_rounded_weights(tmp_path: Path) -> None:
    given = {
        name: array.astype(np.float16).astype(np.float32)
        for name, array in constants(HALVED).items()
    } | HALF_NUMBERS
    path = save(tmp_path, NCHW, HALVED.replace("Cast<to=10>", "Identity"), rank=4, given=given)
    wanted = load(path)
    for io in ("float", "float16"):
        model = onnx.load(save(tmp_path, NCHW.replace("float", io), HALVED, rank=4, given=given))
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
        onnx.save(model, path)
        graph = load(path)
        images = np.random.default_rng(1).random((2, *graph.shapes[INPUT]))
        np.testing.assert_array_equal(evaluate(graph, images), evaluate(wanted, images))
        theirs = float_outputs(path, graph.layout, images, lambda _: None)
        ours = evaluate(graph, images).reshape(2, -1)
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=2e-3 * np.abs(ours).max())


def test_output_without_a_shape_is_the_same_function(tmp_path: Path) -> None:
    path = save(tmp_path, NCHW, "c = Conv(x, w_4_3_3_3) y = Relu(c)", rank=4)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    assert_same_function(path)


def test_channels_last_input_is_the_same_function(tmp_path: Path) -> None:
    body = (
        "t = Transpose<perm=[0,3,1,2]>(x) c = Conv<strides=[2,2]>(t, w_4_3_3_3) r = Relu(c) "
        "u = Transpose<perm=[0,2,3,1]>(r) s = Constant<value_ints=[-1,48]>() f = Reshape(u, s) "
        "y = MatMul(f, w_48_5)"
    )
    graph = assert_same_function(save(tmp_path, NHWC, body, rank=2))
    assert (graph.layout, graph.shapes[INPUT]) == ("NHWC", (3, 9, 8))


@pytest.mark.parametrize(
    "before",
    [
        "k = Constant<value_float=0.5>() m = Mul(x, k) q = Sub(m, k)",
        "d = Div(x, d_1_1_1_3) q = Sub(d, s_3)",
        "p = Constant<value_ints=[0,1,0,0,0,2,1,0]>() q = Pad(x, p)",
    ],
    ids=["Rescaling", "Normalization", "ZeroPadding2D"],
)
def test_channels_last_input_is_told_behind_what_does_not_move_it(
    tmp_path: Path, before: str
) -> None:
    body = f"{before} t = Transpose<perm=[0,3,1,2]>(q) c = Conv(t, w_4_3_3_3) y = Relu(c)"
    assert assert_same_function(save(tmp_path, NHWC, body, rank=4)).layout == "NHWC"


@pytest.mark.parametrize(("opset", "axis"), [(9, ""), (11, "<axis=1>"), (13, "<axis=-3>")])
def test_softmax_over_the_channels_of_one_pixel_is_dropped(
    tmp_path: Path, opset: int, axis: str
) -> None:
    body = f"c = Conv(x, w_5_3_9_8) s = Softmax{axis}(c) y = Flatten(s)"
    graph = assert_same_function(save(tmp_path, NCHW, body, rank=2, opset=opset))
    assert graph.notes == (
        "the final Softmax (Softmax_1) was dropped; it keeps the outputs' order",
    )


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


@pytest.mark.parametrize(
    "body",
    [
        FLATTENED["Flatten"],
        "s = Constant<value_ints=[8,-1]>() f = Reshape(x, s) y = Gemm(f, w_216_5, b_5)",
        "s = Constant<value_ints=[8,216]>() f = Reshape(x, s) y = Gemm(f, w_216_5, b_5)",
    ],
)
def test_network_fixed_at_another_batch_is_the_same_function(tmp_path: Path, body: str) -> None:
    model = onnx.load(save(tmp_path, NCHW, body, rank=2))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, tmp_path / "fixed.onnx")
    fixed = load(tmp_path / "fixed.onnx")
    assert fixed.shapes[fixed.output] == (5, 1, 1)
    images = np.random.default_rng(1).normal(size=(8, *fixed.shapes[INPUT]))
    theirs = float_outputs(tmp_path / "fixed.onnx", fixed.layout, images, lambda _done: None)
    ours = evaluate(fixed, images)[:, :, 0, 0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
