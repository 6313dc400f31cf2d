"""Where a network begins and ends: inputs of integers, an end of the user's choice."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwquant.accuracy import float_outputs
from hwquant.errors import BadInput, UnsupportedModel
from hwquant.float_graph import FloatConv
from hwquant.importer.load import load, shortened
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize
from tests.float_model import evaluate
from tests.onnx_models import assert_same_function, save
from tests.small import BODY as SMALL
from tests.small import IMAGE, SMALL_PLAN, assert_refused, data, hwquant, network

NCHW = "float[N, 3, 9, 8]"
BODY = "c = Conv(x, w_4_3_3_3) r = Relu(c) d = Conv(r, w_2_4_3_3) u = Upsample(d, s_4) y = Abs(u)"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A folder for another network."""
    folder = tmp_path / "other"
    folder.mkdir()
    return folder


def two_ends(folder: Path) -> Path:
    """Write a network with an output at its Conv, and one behind operators that nobody supports."""
    path = save(folder, NCHW, BODY, rank=4, opset=9)
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("d", TensorProto.FLOAT, "abcd"))
    model.graph.node[4].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.input.append(helper.make_tensor_value_info("s_4", TensorProto.FLOAT, [4]))
    del model.graph.initializer[[t.name for t in model.graph.initializer].index("s_4")]
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("until", "last"), [("d", "conv_2"), ("Conv_2", "conv_2"), ("r", "relu_1")]
)
def test_a_network_ends_at_a_node_or_tensor(tmp_path: Path, until: str, last: str) -> None:
    path = two_ends(tmp_path)
    graph = load(path, until=until)
    assert graph.output == last
    assert graph.sha256 != load(path, until="c").sha256
    images = np.random.default_rng(1).normal(size=(2, 3, 9, 8))
    theirs = float_outputs(shortened(path, until), graph.layout, images, lambda _: None)
    ours = evaluate(graph, images).reshape(2, -1)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_a_shorter_network_is_the_same_file_without_its_end(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(shortened(two_ends(tmp_path), "r"))
    assert [node.name for node in model.graph.node] == ["Conv_0", "Relu_1"]
    assert [tensor.name for tensor in model.graph.initializer] == ["w_4_3_3_3"]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["x", "r"]


def test_a_branch_keeps_what_it_reads_from_outside(tmp_path: Path) -> None:
    path = save(tmp_path, NCHW, "c = Conv(x, w_3_3_1_1) y = Relu(c)", rank=4)
    model = onnx.load(path)
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    taken, left = (
        helper.make_graph([helper.make_node("Add", ["c", term], ["z"])], term, [], [value])
        for term in ("b_3_1_1", "x")
    )
    branches = {"then_branch": taken, "else_branch": left}
    node = helper.make_node("If", ["yes"], ["w"], name="If_2")
    node.attribute.extend(helper.make_attribute(*branch) for branch in branches.items())
    model.graph.node.append(node)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    bias = np.arange(3, dtype=np.float32).reshape(3, 1, 1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(bias, "b_3_1_1"))
    onnx.save(model, path)
    (conv,) = load(path, until="If_2").nodes
    assert isinstance(conv, FloatConv)
    np.testing.assert_array_equal(conv.bias, [0, 1, 2])


@pytest.mark.parametrize("until", ["conv_2", "x", ""])
def test_an_end_that_is_nowhere_is_refused_with_names_like_it(tmp_path: Path, until: str) -> None:
    words = f"--until {until}: net.onnx has nothing of that name, but "
    with pytest.raises(BadInput, match="^" + re.escape(words)) as refused:
        load(two_ends(tmp_path), until=until)
    assert until != "conv_2" or str(refused.value).endswith("Conv_2, Conv_0, c")


def test_an_output_declared_with_too_few_dimensions_is_the_same_function(tmp_path: Path) -> None:
    assert_same_function(save(tmp_path, NCHW, "c = Conv(x, w_4_3_3_3) y = Relu(c)", rank=2))


def test_an_end_is_an_option(tmp_path: Path, other: Path) -> None:
    model = save(tmp_path, IMAGE, f"{SMALL.replace('y =', 'z =')} y = Softsign(z)", 2)
    images, until = data(tmp_path / "images.npz"), ("--until", "z")
    result = hwquant("gen", model, "-o", tmp_path / "build", *SMALL_PLAN, *until)
    assert result.exit_code == 0, result.stderr
    build = ("--build", tmp_path / "build")
    result = hwquant("eval", model, "--data", images, "--json", *until, *build)
    assert result.exit_code == 0, result.stderr
    whole = hwquant("eval", network(other), "--data", images, "--json")
    assert json.loads(result.stdout)["accuracy"] == json.loads(whole.stdout)["accuracy"]
    result = hwquant("eval", model, "--data", images, "--until", "Gemm_4", *build)
    assert_refused(result, "made with another model than this evaluation")
    refused = hwquant("eval", model, "--data", images)
    assert_refused(refused, "Softsign is not supported; --until NAME ends the network at a")


# ---------------------------------------------------------------- integers

HEAD = "r = Relu(c) g = GlobalAveragePool(r) y = Flatten(g)"
INTEGERS = {
    "channels last": (
        "uint8[N, 9, 8, 3]",
        "f = Cast<to=1>(x) d = Div(f, d_3) t = Transpose<perm=[0,3,1,2]>(d) c = Conv(t, w_4_3_3_3)",
    ),
    "moved before the Cast": (
        "uint8[N, 9, 8, 3]",
        "t = Transpose<perm=[0,3,1,2]>(x) f = Cast<to=1>(t) c = Conv(f, w_4_3_3_3)",
    ),
    "normalized": (
        "int8[N, 3, 9, 8]",
        "f = Cast<to=1>(x) s = Sub(f, m_3_1_1) d = Mul(s, k_3_1_1) c = Conv(d, w_4_3_3_3)",
    ),
}


@pytest.mark.parametrize("claim", INTEGERS)
def test_input_of_integers_is_the_same_function(tmp_path: Path, claim: str) -> None:
    image, body = INTEGERS[claim]
    graph = assert_same_function(save(tmp_path, image, f"{body} {HEAD}", rank=2))
    assert graph.integers == image.split("[")[0]
    assert graph.layout == ("NHWC" if "8, 3]" in image else "NCHW")


@pytest.mark.parametrize(
    ("image", "config", "message"),
    [
        ("uint8", QuantConfig(input_signed=True), "input_signed=True: permitted False, for the"),
        (
            "int8",
            QuantConfig(),
            "input_signed=False: permitted True, for the network takes int8 as",
        ),
        ("uint8", QuantConfig(mean=(1.0, 2.0, 3.0)), r"mean=\(1.0, 2.0, 3.0\): permitted 0, for"),
        ("uint8", QuantConfig(std=(2.0,)), r"std=\(2.0,\): permitted 1, for the network takes ui"),
        ("uint8", QuantConfig(input_bits=4), "input_bits=4: permitted 8, for the network takes u"),
    ],
)
def test_another_sensor_than_the_network_takes_is_refused(
    tmp_path: Path, image: str, config: QuantConfig, message: str
) -> None:
    body = f"f = Cast<to=1>(x) c = Conv(f, w_4_3_3_3) {HEAD}"
    graph = load(save(tmp_path, f"{image}[N, 3, 9, 8]", body, rank=2))
    with pytest.raises(BadInput, match="^" + message):
        quantize(graph, config)
    assert quantize(graph, QuantConfig(input_signed=image == "int8")).input.bits == 8


def test_arithmetic_of_integers_is_refused_by_name(tmp_path: Path) -> None:
    body = "t = Transpose<perm=[0,3,1,2]>(x) s = MaxPool<kernel_shape=[2,2]>(t) y = Cast<to=1>(s)"
    with pytest.raises(UnsupportedModel, match=r"^MaxPool_1: MaxPool of uint8; hwquant handles"):
        load(save(tmp_path, "uint8[N, 9, 8, 3]", body, rank=4, opset=13))


def test_pixels_go_to_a_network_of_integers_as_they_are(tmp_path: Path, other: Path) -> None:
    images = data(tmp_path / "images.npz")
    body = f"p = Cast<to=1>(x) {SMALL.replace('(x,', '(p,')}"
    model = save(tmp_path, IMAGE.replace("float", "uint8"), body, 2)
    result = hwquant("eval", model, "--data", images, "--json")
    floats = hwquant("eval", network(other), "--data", images, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["accuracy"] == json.loads(floats.stdout)["accuracy"]
    wrong = hwquant("eval", model, "--data", images, "--mean", "128")
    assert_refused(wrong, "mean=(128.0,): permitted 0, for the network takes uint8 as it is")
