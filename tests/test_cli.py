"""``gen`` and ``eval``: what they write; every error is one sentence and an exit code."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import external_data_helper

import hwquant as package
from hwquant import report
from hwquant.commands.options import QuantOptions, quant_options
from hwquant.quantizer.config import QuantConfig
from tests.onnx_models import constants, save
from tests.small import BODY, IMAGE, SMALL_PLAN, assert_refused, data, hwquant, made_build, network


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build directory that no test may change."""
    return made_build(tmp_path_factory.mktemp("made"))


@pytest.fixture
def build(made: Path, tmp_path: Path) -> Path:
    """A build directory of one's own."""
    return shutil.copytree(made, tmp_path / "build")


# ---------------------------------------------------------------- gen


def test_gen_writes_a_build_directory_and_tells_of_its_steps(made: Path) -> None:
    names = {path.name for path in made.iterdir()}
    assert names == {"rtl", "model.hwq", "design.json", "report.json"}
    assert [path.name for path in made.parent.iterdir() if path.name.startswith(".")] == []


def test_gen_json_is_the_report_and_nothing_else(tmp_path: Path) -> None:
    output = tmp_path / "build"
    result = hwquant("gen", network(tmp_path), "-o", output, *SMALL_PLAN, "--json")
    assert result.exit_code == 0
    stored = json.loads(result.stdout)
    assert stored == json.loads((output / "report.json").read_text())
    sizes = {"rows": 4, "cols": 4, "lanes": 2, "macs_per_cycle": 16}
    assert stored["plan"] == sizes | {"device": None, "stream_bits": None, "products": "lut"}
    for section in ("synth", "pnr", "accuracy", "verify"):
        assert stored[section] is None
    assert "quantize W4A4 power" in result.stderr


def test_gen_measures_accuracy_on_data(tmp_path: Path) -> None:
    images = data(tmp_path / "images.npz")
    arguments = ("gen", network(tmp_path), "-o", tmp_path / "build", *SMALL_PLAN, "--json")
    result = hwquant(*arguments, "--data", images, "--limit", "4")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["accuracy"]["n"] == 4


def test_gen_replaces_a_build_directory(build: Path, tmp_path: Path) -> None:
    (build / "left.txt").write_text("from before")
    result = hwquant("gen", network(tmp_path), "-o", build, *SMALL_PLAN, "--bits", "3")
    assert result.exit_code == 0, result.stderr
    assert not (build / "left.txt").exists()
    assert json.loads((build / "report.json").read_text())["quantization"]["act_bits"] == 3


def test_gen_leaves_other_peoples_directories_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    result = hwquant("gen", network(tmp_path), "-o", mine, *SMALL_PLAN)
    assert_refused(result, "not a build directory of hwquant, so it is not overwritten")
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    assert_refused(hwquant("gen", "-o", mine / "thesis.txt"), "a file is there")
    assert_refused(hwquant("gen", "-o", "."), "is the current directory")


def test_gen_leaves_nothing_where_it_fails(tmp_path: Path) -> None:
    result = hwquant("gen", tmp_path / "absent.onnx", "-o", tmp_path / "deep" / "build")
    assert_refused(result, "absent.onnx: cannot be read: No such file or directory")
    assert list(tmp_path.iterdir()) == []


def test_gen_refuses_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file" / "build", Path("/proc/build")):
        result = hwquant("gen", network(tmp_path), "-o", output, *SMALL_PLAN)
        assert_refused(result, f"{output}: cannot be written: ")


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "build"))

    monkeypatch.setattr(report, "write", full)
    result = hwquant("gen", network(tmp_path), "-o", tmp_path / "build", *SMALL_PLAN)
    assert_refused(result, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_streamed_weights_are_those_of_the_rom_in_beats(build: Path, tmp_path: Path) -> None:
    (image,) = (build / "rtl" / "mem").glob("*weights.mem")
    words = [int(word, 16) for word in image.read_text().split()]
    output = tmp_path / "streamed"
    arguments = ("gen", network(tmp_path), "-o", output, *SMALL_PLAN, *STREAM)
    result = hwquant(*arguments)
    assert result.exit_code == 0, result.stderr
    assert f"{len(words)} beats of 64 bits" in result.stdout
    assert hwquant(*arguments, "--weight-stream-bits", "16").exit_code == 0
    beats = [int(beat, 16) for beat in (output / "weights.hex").read_text().split()]
    assert beats == [word >> at & 0xFFFF for word in words for at in (0, 16, 32, 48)]
    design, made = (
        json.loads((output / name).read_text()) for name in ("design.json", "report.json")
    )
    assert design["plan"]["stream_bits"] == 16
    assert design["weight_stream"]["beats"] == len(beats)
    assert made["weight_stream"] == design["weight_stream"]


def test_specific_bits_come_before_bits(tmp_path: Path) -> None:
    arguments = ("eval", network(tmp_path), "--data", data(tmp_path / "d.npz"), "--json")
    result = hwquant(*arguments, "--bits", "5", "--act-bits", "3", "--edge-bits", "6")
    found = json.loads(result.stdout)["quantization"]
    assert (found["weight_bits"], found["act_bits"], found["edge_bits"]) == (5, 3, 6)


def test_a_channel_of_zeros_is_no_error(tmp_path: Path) -> None:
    weights = constants("w_4_3_3_3")
    weights["w_4_3_3_3"][1] = 0
    model = network(tmp_path, weights)
    images = data(tmp_path / "d.npz")
    assert hwquant("eval", model, "--data", images).exit_code == 0
    assert hwquant("gen", model, "-o", tmp_path / "build", *SMALL_PLAN).exit_code == 0


# ---------------------------------------------------------------- bad options and networks

STREAM = ("--weights", "stream")
BAD_OPTIONS = [
    (("--bits", "9"), "weight_bits=9: permitted 2..8"),
    (("--bits", "1"), "weight_bits=1: permitted 2..8"),
    (("--act-bits", "0"), "act_bits=0: permitted 2..8"),
    (("--edge-bits", "3"), "edge_bits=3: permitted 4..8"),
    (("--product-bits", "99"), "product_bits=99"),
    (("--extra-macs", "4"), "extra_macs=4.0: permitted 0..3"),
    (
        ("--extra-macs", "1", "--edge-bits", "4"),
        "extra_macs=1.0: permitted 0 with edge_bits=4, which one digit has",
    ),
    (("--input-bits", "0"), "input_bits=0"),
    (("--input-shape", "3,0,5"), "are not positive integers with commas between them"),
    (("--input-shape", "3,6,x"), "are not positive integers with commas between them"),
    (("--input-shape", "6,5"), "--input-shape has 2 numbers; input 'x' has 3 dimensions"),
    (("--bits", "four"), "'four' is not a valid integer"),
    (("--exponent", "2"), "exponent=2.0"),
    (("--exponent", "half"), "'half' is neither auto nor a number"),
    (("--activation", "spline"), "'spline' is not one of"),
    (("--max-code-error", "9"), "max_code_error=9: permitted 0..8"),
    (("--method", "cubic"), "'cubic' is not one of"),
    (("--rounding", "up"), "'up' is not one of 'nearest', 'second_order', 'squant'"),
    (("--ranges", "mse"), "'mse' is not one of 'reach', 'omse'"),
    (("--search", "grid"), "'grid' is not one of 'weights', 'both', 'separate'"),
    (("--mean", "1,2"), "mean=2 numbers: permitted 1 or 3 of them"),
    (("--mean", "1,x,3"), "are not numbers with commas between them"),
    (("--std", "0"), "std=(0.0,)"),
    (("--std", "inf"), "are not all finite"),
    (("--rows", "3"), "rows=3: must be a power of two in 1..64"),
    (("--cols", "1"), "cols=1: must be a power of two in 2..64"),
    (("--lanes", "16"), "lanes=16: must be a power of two in 1..8"),
    (("--weights", "disk"), "'disk' is not one of 'rom', 'stream'"),
    (("--weight-stream-bits", "32"), "--weight-stream-bits=32: only with --weights stream"),
    ((*STREAM, "--weight-stream-bits", "48"), "stream_bits=48: must be a power of two in 1..1024"),
    (
        (*STREAM, "--weight-stream-bits", "64", *SMALL_PLAN, "--cols", "2", "--lanes", "1"),
        "weight stream of 64 bits: must divide a word of 4 x 2 weights of 4 bits, which has 32",
    ),
    (("--device", "xc7z020"), "device 'xc7z020': hwquant knows xc7a35t"),
    (("--products", "dsp"), "products=dsp on no device: needs one of xc7a35t, xc7a100t"),
    (("--products", "dsp", "--device", "lfe5u-25f"), "products=dsp on lfe5u-25f: needs one of"),
    (("--colour",), "No such option"),
]


@pytest.mark.parametrize(
    ("options", "words"), BAD_OPTIONS, ids=[" ".join(options) for options, _ in BAD_OPTIONS]
)
def test_a_bad_option_is_one_sentence(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    result = hwquant("gen", network(tmp_path), "-o", tmp_path / "build", *options)
    assert_refused(result, words)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ((), {}),
        (("--rounding", "nearest"), {"rounding": "nearest"}),
        (("--rounding", "squant"), {"rounding": "squant"}),
        (("--ranges", "omse"), {"ranges": "omse"}),
        (("--search", "weights"), {"search": "weights"}),
        (("--search", "separate"), {"search": "separate"}),
        (("--equalize",), {"equalize": True}),
        (("--extra-macs", "0.5"), {"extra_macs": 0.5}),
    ],
)
def test_options_reach_the_configuration(
    options: tuple[str, ...], changes: dict[str, Any], tmp_path: Path
) -> None:
    found = list[QuantConfig]()

    @click.command()
    @quant_options
    def verb(given: QuantOptions) -> None:
        found.append(given.config(tmp_path / "net.onnx"))

    result = CliRunner().invoke(verb, options)
    assert result.exit_code == 0, result.output
    assert found == [replace(QuantConfig(), **changes)]


def test_verbs_and_arguments_that_are_missing_are_one_sentence() -> None:
    assert_refused(hwquant("generate"), "No such command 'generate'")
    assert_refused(hwquant("verify"), "Missing argument 'DIR'")
    assert_refused(hwquant("eval", "net.onnx"), "Missing option '--data'")


def test_what_is_no_onnx_file_is_one_sentence(tmp_path: Path) -> None:
    text, cut = tmp_path / "text.onnx", tmp_path / "cut.onnx"
    text.write_text("import torch")
    cut.write_bytes(network(tmp_path).read_bytes()[:-40])
    for model in (text, cut):
        result = hwquant("gen", model, "-o", tmp_path / "build")
        assert_refused(result, f"{model}: not an ONNX file, or a truncated one")
    assert_refused(hwquant("gen", tmp_path, "-o", tmp_path / "build"), "Is a directory")


def test_missing_external_weights_are_one_sentence(tmp_path: Path) -> None:
    model = onnx.load(network(tmp_path))
    external_data_helper.convert_model_to_external_data(model, location="w", size_threshold=0)
    onnx.save(model, tmp_path / "net.onnx")
    (tmp_path / "w").unlink()
    result = hwquant("gen", tmp_path / "net.onnx", "-o", tmp_path / "build")
    assert_refused(result, "the weights it keeps in other files cannot be read")


def test_a_dynamic_image_is_one_sentence(tmp_path: Path) -> None:
    model = save(tmp_path, "float[N, 3, H, W]", "y = Relu(x)", 4)
    assert_refused(hwquant("gen", model, "-o", tmp_path / "b"), "dimension 2 (H) is dynamic")


def test_sizes_that_the_network_leaves_open_are_an_option(tmp_path: Path) -> None:
    model, images = save(tmp_path, "float[N, 3, H, W]", BODY, 2), data(tmp_path / "images.npz")
    shape = ("--input-shape", "3,6,5")
    result = hwquant("eval", model, "--data", images, "--json", *shape)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["accuracy"]["n"] == 6
    result = hwquant("gen", model, "-o", tmp_path / "build", *SMALL_PLAN, *shape, "--json")
    assert result.exit_code == 0, result.stderr
    assert_refused(hwquant("gen", model, "-o", tmp_path / "b"), "--input-shape, here 3,H,W")
    wrong = hwquant("gen", model, "-o", tmp_path / "b", "--input-shape", "1,6,5")
    assert_refused(wrong, "--input-shape: dimension 1 of input 'x' is 3, not 1")


def test_an_unsupported_operator_is_one_sentence(tmp_path: Path) -> None:
    model = save(tmp_path, IMAGE, "y = Softsign(x)", 4)
    assert_refused(
        hwquant("gen", model, "-o", tmp_path / "b"), ["Softsign_0", "Softsign is not supported"]
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_one_sentence(tmp_path: Path, value: float) -> None:
    weights = constants("w_3_4")
    weights["w_3_4"][0, 0] = value
    result = hwquant("gen", network(tmp_path, weights), "-o", tmp_path / "build")
    assert_refused(result, "1 NaN or infinite values in 'w_3_4'")


# ---------------------------------------------------------------- eval


def test_eval_agrees_with_onnx_runtime_on_the_float_side(tmp_path: Path) -> None:
    model, images = network(tmp_path), data(tmp_path / "d.npz")
    options = ("--mean", "120,130,140", "--std", "60", "--bits", "8", "--json")
    result = hwquant("eval", model, "--data", images, *options)
    assert result.exit_code == 0, result.stderr
    with np.load(images) as arrays:
        x, y = arrays["x"].transpose(0, 3, 1, 2), arrays["y"]
    real = (x - np.array([120, 130, 140]).reshape(3, 1, 1)) / 60
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": real.astype(np.float32)})
    accuracy = json.loads(result.stdout)["accuracy"]
    assert accuracy["float_top1"] == np.mean(np.argmax(np.asarray(output), axis=1) == y)
    assert accuracy["agreement"] >= 5 / 6
    assert set(accuracy) == {"data", "n", "float_top1", "top1", "agreement"}


@pytest.mark.parametrize("batch", ["1", "4"])
def test_eval_fills_the_batch_that_a_network_fixes(tmp_path: Path, batch: str) -> None:
    images = data(tmp_path / "d.npz")
    free = hwquant("eval", network(tmp_path), "--data", images, "--json")
    model = save(tmp_path, IMAGE.replace("N", batch), BODY, 2)
    fixed = hwquant("eval", model, "--data", images, "--json")
    assert json.loads(fixed.stdout)["accuracy"] == json.loads(free.stdout)["accuracy"]


def test_eval_goes_one_by_one_where_the_network_flattens_its_batch(tmp_path: Path) -> None:
    images = data(tmp_path / "d.npz")
    body = "s = Constant<value_ints=[1,-1]>() f = Reshape(x, s) y = MatMul(f, w_90_3)"
    result = hwquant("eval", save(tmp_path, IMAGE, body, 2), "--data", images, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["accuracy"]["n"] == 6


@pytest.mark.parametrize("image", ["float[N, 3, 5]", "float[N, 5, 3]"])
def test_eval_gives_sequences_to_the_float_side_in_its_layout(tmp_path: Path, image: str) -> None:
    move = "i = Identity(x)" if image == "float[N, 3, 5]" else "i = Transpose<perm=[0,2,1]>(x)"
    body = f"{move} c = Conv<pads=[1,1]>(i, w_4_3_3) r = Relu(c) f = Flatten(r) y = Gemm(f, w_20_3)"
    pixels = np.random.default_rng(5).integers(0, 256, (6, 1, 5, 3)).astype(np.uint8)
    images = data(tmp_path / "d.npz", x=pixels)
    bits = ("--bits", "8", "--json")
    result = hwquant("eval", save(tmp_path, image, body, 2), "--data", images, *bits)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["accuracy"]["agreement"] == 1


def test_eval_stores_accuracy_in_the_directory_of_the_same_network(build: Path) -> None:
    model, images = network(build.parent), data(build.parent / "d.npz")
    arguments = ("eval", model, "--data", images, "--build", build)
    assert hwquant(*arguments).exit_code == 0
    assert json.loads((build / "report.json").read_text())["accuracy"]["n"] == 6
    assert_refused(hwquant(*arguments, "--act-bits", "5"), "made with another act_bits (4, not 5)")


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"y": None}, "has no labels 'y'"),
        ({"y": np.full(6, 3)}, "labels 3..3; the network has classes 0..2"),
        ({"x": np.full((6, 6, 5, 3), 0.5, np.float32)}, "x is float32"),
        ({"x": np.zeros((6, 5, 6, 3), np.uint8)}, "the network takes (3, 6, 5)"),
        ({"x": None}, "has no array 'x'"),
        ({"layout": None}, "has no 'layout'"),
    ],
)
def test_bad_data_is_one_sentence(tmp_path: Path, replaced: dict[str, Any], words: str) -> None:
    images = data(tmp_path / "d.npz", **replaced)
    assert_refused(hwquant("eval", network(tmp_path), "--data", images), words)


# ---------------------------------------------------------------- interruption


# a shell that starts tests in the background has them, and so their children, ignore Ctrl-C
INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from hwquant.cli import main; main()"
)


def test_ctrl_c_leaves_nothing_and_exits_130(tmp_path: Path) -> None:
    arguments = ["gen", network(tmp_path), "-o", tmp_path / "build", "--rows", "64", "--cols", "64"]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *map(str, arguments)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(package.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stderr is not None
            assert any(line.startswith("elaborating") for line in child.stderr)
            assert any(path.name.startswith(".build-") for path in tmp_path.iterdir())
            child.send_signal(signal.SIGINT)
            output, messages = child.communicate(timeout=60)
        finally:
            child.kill()
    assert (child.returncode, output) == (130, ""), messages
    assert messages.strip() == "Error: interrupted"
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
