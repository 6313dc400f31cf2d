"""What cannot be imported is refused in one sentence that names the node, or the file, and why."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwquant.errors import BadInput, UnsupportedModel
from hwquant.importer.load import load
from tests.onnx_models import constants, save

NCHW, NF = "float[N, 3, 9, 8]", "float[N, 10]"

REFUSED = [
    ("r = Relu(x) y = Conv(x, r)", "Conv_1: weights 'r' of Conv are not constant"),
    (
        "y = MaxPool<kernel_shape=[2,2], dilations=[2,1]>(x)",
        "MaxPool_0: MaxPool with dilations=(2, 1); hwquant handles 1",
    ),
    (
        'y = Conv<auto_pad="SAME_UPPER", strides=[5,5]>(x, w_4_3_1_1)',
        "Conv_0: Conv with auto_pad=SAME_UPPER and stride (5, 5) > (1, 1)",
    ),
    ("y = Conv(x, w_4_3_10_3)", "Conv_0: Conv with window (10, 3) and pads (0, 0, 0, 0)"),
    (
        "t = Transpose<perm=[0,2,1,3]>(x) y = Conv(t, w_4_9_3_3)",
        "Conv_1: Conv of a tensor of shape",
    ),
    (
        "y = Conv(w_1_3_9_8, x)",
        "Conv_0: operand 'w_1_3_9_8' of Conv is constant; hwquant handles Conv of what the network",
    ),
    (
        "c = Conv(x, w_6_3_4_3) t = Transpose<perm=[0,3,2,1]>(c) y = Add(t, c)",
        "Add_2: Add of tensors of shape (1, 6, 6, 6) and (1, 6, 6, 6); hwquant handles Add of",
    ),
    (
        "c = Conv(x, w_4_3_3_3) y = BatchNormalization(c, g_4, b_4, m_4, sigma_4)",
        "BatchNormalization_1: BatchNormalization with variance + epsilon = -",
    ),
    (
        "c = Conv(x, w_4_3_3_3) y = Mul(c, w_1_4_7_6)",
        "Mul_1: Mul of a constant that differs within",
    ),
    ("c = Conv(x, w_4_3_3_3) k = Constant<value_float=0.0>() y = Div(c, k)", "Div_2: Div by zero"),
    ("k = Constant<value_float=2.0>() y = Div(x, w_9_8)", "Div_1: Div of a constant that differs"),
    ("y = Div(s_1_3_1_1, x)", "Div_0: Div of a constant by a tensor; hwquant handles the other"),
    (
        "c = Conv(x, w_3_3_1_1) y = Mul(x, c)",
        (
            "Mul_1: Mul of tensors of shape (1, 3, 9, 8) and (1, 3, 9, 8); hwquant handles Add of "
            "equal shapes and layouts, Mul by one value a channel (N, C, 1, 1), and activation"
        ),
    ),
    ("c = Conv(x, w_1_3_9_8) y = Mul(x, c)", "Mul_1: Mul of tensors of shape (1, 3, 9, 8) and (1,"),
    ("c = Conv(x, w_3_3_1_1) y = Max(x, c)", "Max_1: Max of tensors of shape (1, 3, 9, 8) and"),
    ("y = Pow(x, w_1_3_1_1)", "Pow_0: Pow of tensors of shape (1, 3, 9, 8) and"),
    (
        "g = GlobalAveragePool(x) y = Add(x, g)",
        "Add_1: Add of tensors of shape (1, 3, 9, 8) and (1,",
    ),
    (
        "s = LogSoftmax<axis=1>(x) y = Relu(s)",
        "LogSoftmax_0: LogSoftmax inside the network; hwquant",
    ),
    ("s = Softmax<axis=1>(x) y = Relu(s)", "Softmax_0: Softmax over axis 1 of shape (1, 3, 9, 8)"),
    ("s = Softmax(x) y = Relu(s)", "Softmax_0: Softmax over axis -1 of shape (1, 3, 9, 8)"),
    (
        "l = Constant<value_float=0.5>() h = Constant<value_float=1.0>() y = Clip(x, l, h)",
        (
            "Clip_2: Clip ends a chain of operators that computes no function that hwquant "
            "handles: ReLU (from 0 to any ceiling), LeakyReLU with a slope between 0 and 1, PReLU"
        ),
    ),
    ("e = Erf(x) y = Conv(e, w_4_3_3_3)", "Erf_0: Erf ends a chain of operators that computes no"),
    ("e = Exp(x) y = Div(x, e)", "Div_1: Div ends a chain of operators that computes no function"),
    ("y = LeakyRelu<alpha=2.0>(x)", "LeakyRelu_0: LeakyRelu ends a chain of operators that"),
    ("y = HardSigmoid<alpha=-0.2>(x)", "HardSigmoid_0: HardSigmoid ends a chain of operators"),
    ("r = Relu(x) y = PRelu(x, r)", "PRelu_1: weights 'r' of PRelu are not constant"),
    ("r = Relu(x) y = Concat<axis=2>(r, x)", "Concat_1: Concat along axis 2 of tensors of shape "),
    (
        "y = Concat<axis=1>(x, w_1_2_9_8)",
        "Concat_0: Concat along axis 1 of constants and tensors of shape (1, 3, 9, 8), (1, 2",
    ),
    (
        "c = Conv(x, w_3_3_2_1) t = Transpose<perm=[0,1,3,2]>(c) y = Concat<axis=1>(t, c)",
        (
            "Concat_2: Concat along axis 1 of tensors of shape (1, 3, 8, 8), (1, 3, 8, 8); hwquant "
            "handles the channels of images and vectors"
        ),
    ),
    (
        "y = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)",
        "AveragePool_0: AveragePool with ceil_mode=1, whose last window hangs over the",
    ),
    (
        "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)",
        "AveragePool_0: AveragePool with pads (1, 1, 1, 1) and count_include_pad=0; hwquant",
    ),
    (
        (
            "p = Constant<value_ints=[0,0,1,1,0,0,1,1]>() q = Pad(x, p) "
            "y = MaxPool<kernel_shape=[3,3]>(q)"
        ),
        "MaxPool_2: MaxPool of an image padded by (1, 1, 1, 1) (top, left, bottom, right)",
    ),
    ("y = ReduceMean<axes=[1]>(x)", "ReduceMean_0: ReduceMean over axes [1] of shape (1, 3, 9, 8)"),
    ("y = ReduceMean<axes=[0]>(x)", "ReduceMean_0: ReduceMean over axes [0] of shape (1, 3, 9, 8)"),
    (
        "y = ReduceMin<axes=[2,3]>(x)",
        "ReduceMin_0: operator ReduceMin is not supported; --until NAME ends the network at a node",
    ),
    (
        (
            "z = Constant<value_ints=[-1]>() e = Constant<value_ints=[-99]>() "
            "a = Constant<value_ints=[2]>() y = Slice(x, z, e, a, z)"
        ),
        "Slice_3: Slice -1:-99:-1 of axis 2 of shape (1, 3, 9, 8); hwquant handles rows, columns",
    ),
    (
        "r = Relu(x) q = QuantizeLinear(r, s_1) y = DequantizeLinear(q, s_1)",
        "QuantizeLinear_1: QuantizeLinear: the network is quantized already; hwquant takes it as",
    ),
    (
        "p = Constant<value_ints=[0,0,1,1,0,0,1,1]>() q = Pad(x, p) y = Relu(q)",
        (
            "Relu_2: Relu of an image padded by (1, 1, 1, 1) (top, left, bottom, right); hwquant "
            "handles a Pad of height and width right before a Conv, an AveragePool, or a MaxPool"
        ),
    ),
    ("p = Constant<value_ints=[0,0,1,1,0,0,1,1]>() y = Pad(x, p)", "Pad_1: Pad of the output;"),
    (
        "p = Constant<value_ints=[0,1,1,1,0,0,1,1]>() q = Pad(x, p) y = Conv(q, w_4_4_3_3)",
        "Pad_1: Pad of [0, 1, 1, 1] before and [0, 0, 1, 1] after, mode constant, value 0; hwquant",
    ),
    (
        (
            "p = Constant<value_ints=[0,0,1,1,0,0,1,1]>() v = Constant<value_float=2.0>() "
            "q = Pad(x, p, v) y = Conv(q, w_4_3_3_3)"
        ),
        "Pad_2: Pad of [0, 0, 1, 1] before and [0, 0, 1, 1] after, mode constant, value 2; hwquant",
    ),
    (
        "s = Constant<value_ints=[0,9,3,8]>() y = Reshape(x, s)",
        "Reshape_1: Reshape from (1, 3, 9, 8)",
    ),
    ("y = MatMul(x, w_8_5)", "MatMul_0: MatMul of shapes (1, 3, 9, 8) and (8, 5)"),
    ("y = Softmax<axis=3>(x)", "Softmax_0: Softmax over axis 3, which is not the channels'"),
    ("y = Identity(x)", "net: the network has no layers"),
    ("y = other.Conv(x)", "Conv_0: operator other.Conv; hwquant handles the standard operators"),
]
BROKEN = [
    ("y = Conv<pads=[2,0,-1,0]>(x, w_4_3_3_3)", "Attribute pads must not contain negative values"),
    ("y = Conv(x, w_4_2_3_3)", "Conv_0: weight (4, 2, 3, 3) on an image (C, H, W) = (3, 9, 8)"),
    ("y = Conv(x, w_4_3_3_3, b_5)", "Conv_0: 'b_5' has shape (5,); (4,) is needed"),
    ("y = Conv<strides=[0,1]>(x, w_4_3_3_3)", "Conv_0: strides = [0, 1]; 1 is the smallest"),
    ("y = Conv(x)", "net.onnx: not a valid ONNX network: Node(Conv_0)"),
    (
        "y = Conv(x, unknown)",
        "net.onnx: not a valid ONNX network: Nodes in a graph must be topolog",
    ),
    (
        "y = Add(x, w_5_1_1)",
        "net.onnx: types or shapes contradict each other for images of shape",
    ),
]


@pytest.mark.parametrize(("body", "message"), REFUSED)
def test_unsupported_operator_is_refused_by_name(tmp_path: Path, body: str, message: str) -> None:
    model = onnx.load(save(tmp_path, NCHW, body, rank=4))
    model.opset_import.append(helper.make_opsetid("other", 1))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(UnsupportedModel, match="^" + re.escape(message)):
        load(tmp_path / "net.onnx")


@pytest.mark.parametrize(("body", "message"), BROKEN)
def test_contradictory_network_is_bad_input(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        load(save(tmp_path, NCHW, body, rank=4))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            "float[N, 3, height, 8]",
            (
                r"input 'x': dimension 2 \(height\) is dynamic; fix the sizes of all dimensions "
                r"but the batch with --input-shape, here 3,height,8$"
            ),
        ),
        ("float[N, 3, 0, 8]", "input 'x': dimension 2 has size 0"),
        ("float[N, 3, 9, 8, 2]", r"input 'x' has 5 dimensions; hwquant handles \(N, C, H, W\)"),
        ("bfloat16[N, 3, 9, 8]", "input 'x' is bfloat16; hwquant handles float16, float, double"),
        ("float[N, 3, 9, 8] z, float[N]", r"2 inputs \(z, x\); hwquant handles networks with one"),
    ],
)
def test_unusable_input_is_refused_by_name(tmp_path: Path, image: str, message: str) -> None:
    with pytest.raises((UnsupportedModel, BadInput), match=message):
        load(save(tmp_path, image, "y = Relu(x)", rank=4))


def test_a_constant_for_every_image_of_a_batch_is_refused_by_name(tmp_path: Path) -> None:
    path = save(tmp_path, "float[8, 3, 9, 8]", "y = Add(x, w_8_3_9_8)", rank=4)
    words = r"^Add_0: Add of shape \(1, 3, 9, 8\) and a constant of shape \(8, 3, 9, 8\)"
    with pytest.raises(UnsupportedModel, match=words):
        load(path)


def test_second_output_old_opset_and_training_dropout_are_refused(tmp_path: Path) -> None:
    model = onnx.load(save(tmp_path, NCHW, "z = Relu(x) y = Conv(z, w_4_3_3_3)", rank=4))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    model.graph.output[1].CopyFrom(model.graph.output[0])
    model.graph.output[1].name = "z"
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(UnsupportedModel, match=r"2 outputs \(y, z\); hwquant .*; --until NAME ta"):
        load(tmp_path / "net.onnx")
    with pytest.raises(UnsupportedModel, match="ONNX opset 6; hwquant handles 7 and newer"):
        load(save(tmp_path, NCHW, "y = Relu(x)", rank=4, opset=6))
    body = "r = Constant<value_float=0.5>() t = Constant<value=bool {1}>() y = Dropout(x, r, t)"
    with pytest.raises(UnsupportedModel, match="Dropout_2: Dropout in training mode; export the"):
        load(save(tmp_path, NCHW, body, rank=4))


def test_nan_and_half_precision_weights_are_refused_by_name_and_count(tmp_path: Path) -> None:
    weight = constants("w_4_3_3_3")["w_4_3_3_3"]
    weight[0, 0, 0], weight[3, 2, 1, 0] = np.nan, np.inf
    path = save(tmp_path, NCHW, "y = Conv(x, w)", rank=4, given={"w": weight})
    with pytest.raises(BadInput, match=r"^Conv_0: 4 NaN or infinite values in 'w'$"):
        load(path)
    half = {"w": constants("w_4_3_3_3")["w_4_3_3_3"].astype(np.float16)}
    with pytest.raises(
        BadInput, match=r"node name: Conv_0\): W has inconsistent type tensor\(float16"
    ):
        load(save(tmp_path, NCHW, "y = Conv(x, w)", rank=4, given=half))


def test_file_that_is_no_network_is_refused_in_one_sentence(tmp_path: Path) -> None:
    whole = save(tmp_path, NF, "y = Gemm(x, w_10_4)", rank=2).read_bytes()
    files = {
        "png.onnx": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01", "not an ONNX file"),
        "text.onnx": (b"# a README\n", "not an ONNX file"),
        "cut.onnx": (whole[: len(whole) // 2], "not an ONNX file, or a truncated one"),
        "empty.onnx": (b"", "the file is empty"),
        "header.onnx": (onnx.ModelProto(ir_version=8).SerializeToString(), "holds no ONNX network"),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=f"{name}: {message}"):
            load(tmp_path / name)
    with pytest.raises(BadInput, match=r"missing\.onnx: cannot be read: No such file"):
        load(tmp_path / "missing.onnx")
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_weights_missing_from_another_file_are_bad_input(tmp_path: Path) -> None:
    path = save(tmp_path, NF, "y = Gemm(x, w_10_4)", rank=2)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    load(path)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(BadInput, match=r"weights it keeps in other files cannot be read: .*w\.bin"):
        load(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ppocr_cls", r"input 'x': dimension 2 \(\?\) is dynamic"),
    ],
)
def test_real_network_is_refused_by_name(shared: Path, name: str, message: str) -> None:
    with pytest.raises(UnsupportedModel, match="^" + message):
        load(shared / "models" / f"{name}.onnx")


def test_nothing_is_printed_when_folding_fails_loudly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body = "k = Constant<value_ints=[3]>() r = Reshape(w_10_4, k) y = MatMul(x, r)"
    path = save(tmp_path, NF, body, rank=2)
    with pytest.raises(BadInput, match="types or shapes contradict each other"):
        load(path)
    assert capfd.readouterr() == ("", "")
