"""Crops, strides and rearranged pixels are imported as convolutions, or as parts of others."""

from pathlib import Path

import numpy as np
import pytest

from hwquant.float_graph import FloatConv, FloatGraph
from hwquant.importer.load import load
from hwquant.ir import INPUT
from tests.onnx_models import assert_same_function, save

NCHW = "float[N, 3, 10, 8]"


def taken(output: str, source: str, axis: int, start: int, end: int = 2**62, step: int = 1) -> str:
    """Write one Slice; its constants are called after its output."""
    values = {"s": start, "e": end, "a": axis, "p": step}
    given = " ".join(
        f"{output}{name} = Constant<value_ints=[{value}]>()" for name, value in values.items()
    )
    return f"{given} {output} = Slice({source}, {output}s, {output}e, {output}a, {output}p)"


def patch(output: str, down: int, right: int) -> str:
    """Write two Slices: every second row and column of x, from ``down`` and ``right`` on."""
    rows = taken(f"{output}r", "x", 2, down, step=2)
    return f"{rows} {taken(output, f'{output}r', 3, right, step=2)}"


PATCHES = " ".join(
    patch(name, down, right)
    for name, down, right in (("k", 0, 0), ("l", 1, 0), ("m", 0, 1), ("n", 1, 1))
)
FOCUS = f"{PATCHES} f = Concat<axis=1>(k, l, m, n)"
CROP = f"{taken('r', 'x', 2, 1, -2)} {taken('k', 'r', 3, 2, 7)}"
FOLDED = {  # one convolution: its kernel, stride and pads
    "Focus": (
        f"{FOCUS} y = Conv<pads=[1,1,1,1]>(f, w_4_12_3_3, b_4)",
        (6, 6),
        (2, 2),
        (2, 2, 2, 2),
    ),
    "Focus, then a stride": (
        f"{FOCUS} y = Conv<strides=[2,1], pads=[1,0,0,1]>(f, w_4_12_3_2)",
        (6, 4),
        (4, 2),
        (2, 0, 0, 2),
    ),
    "space to depth": (
        "s = SpaceToDepth<blocksize=2>(x) y = Conv<pads=[1,1,1,1]>(s, w_4_12_3_3)",
        (6, 6),
        (2, 2),
        (2, 2, 2, 2),
    ),
    "crop": (f"{CROP} y = Conv(k, w_4_3_3_2)", (6, 5), (1, 1), (0, 0, 0, 0)),
    "crop of a depthwise Conv": (
        f"{CROP} y = Conv<group=3, strides=[2,1]>(k, w_6_1_2_2)",
        (5, 5),
        (2, 1),
        (0, 0, 0, 0),
    ),
    "every third column": (
        f"{taken('k', 'x', 3, 1, step=3)} y = Conv<pads=[1,0,1,0]>(k, w_4_3_3_2)",
        (3, 5),
        (1, 3),
        (1, 0, 1, 0),
    ),
    "channels backwards": (
        f"{taken('k', 'x', 1, -1, -(2**62), -1)} y = Conv<pads=[1,1,1,1]>(k, w_4_3_3_3)",
        (3, 3),
        (1, 1),
        (1, 1, 1, 1),
    ),
    "channels in any order": (
        (
            "i = Constant<value_ints=[2,0,0,-2]>() k = Gather<axis=1>(x, i) "
            "y = Conv<pads=[0,1,0,1]>(k, w_5_4_1_3)"
        ),
        (1, 3),
        (1, 1),
        (0, 1, 0, 1),
    ),
    "end of a Conv": (
        f"c = Conv<pads=[2,1,2,1]>(x, w_4_3_3_3) {taken('k', 'c', 2, 0, -2)} y = Relu(k)",
        (3, 3),
        (1, 1),
        (2, 1, 0, 1),
    ),
    "inside of a Conv with strides": (
        (
            "c = Conv<pads=[2,2,1,1], strides=[1,2]>(x, w_4_3_3_3) "
            f"{taken('r', 'c', 2, 1, -1)} {taken('k', 'r', 3, 1, step=2)} y = Relu(k)"
        ),
        (3, 3),
        (1, 4),
        (1, 0, 0, 0),
    ),
}


def convolutions(graph: FloatGraph) -> list[FloatConv]:
    return [node for node in graph.nodes if isinstance(node, FloatConv)]


@pytest.mark.parametrize("claim", FOLDED)
def test_choice_folds_into_a_convolution(tmp_path: Path, claim: str) -> None:
    body, kernel, stride, pads = FOLDED[claim]
    (conv,) = convolutions(assert_same_function(save(tmp_path, NCHW, body, rank=4)))
    assert conv.source == INPUT
    assert (conv.weight.shape[2:], conv.stride, conv.pads) == (kernel, stride, pads)


KEPT = {  # two convolutions, of which one chooses
    "crop inside": f"r = Relu(x) {taken('k', 'r', 2, 1, -2)} y = Conv(k, w_4_3_3_2)",
    "crop before pads": f"{CROP} y = Conv<pads=[1,1,1,1]>(k, w_4_3_3_3)",
    "crop that is scaled": f"{CROP} t = Mul(k, s_3_1_1) y = Conv(t, w_4_3_3_3)",
    "crop in use twice": f"{CROP} c = Conv<pads=[1,1,1,1]>(k, w_3_3_3_3) y = Add(c, k)",
    "rows beyond the chosen ones": (
        f"{taken('k', 'x', 2, 0, 7, 2)} y = Conv<pads=[0,0,1,0]>(k, w_4_3_2_2)"
    ),
    "grouped Conv of other channels": (
        "i = Constant<value_ints=[2,0,1]>() k = Gather<axis=1>(x, i) "
        "y = Conv<group=3>(k, w_6_1_3_3)"
    ),
    "crop of a tensor in use": (
        f"c = Conv<pads=[1,1,1,1]>(x, w_4_3_3_3) {taken('k', 'c', 3, 1)} r = Relu(c) "
        f"{taken('m', 'r', 3, 0, -1)} y = Add(k, m)"
    ),
}


@pytest.mark.parametrize("claim", KEPT)
def test_choice_that_cannot_fold_is_a_convolution_of_ones(tmp_path: Path, claim: str) -> None:
    graph = assert_same_function(save(tmp_path, NCHW, KEPT[claim], rank=4))
    assert len(convolutions(graph)) == (3 if "tensor in use" in claim else 2)


def test_patches_that_are_read_alone_too_are_there_once(tmp_path: Path) -> None:
    body = f"{FOCUS} c = Conv(f, w_3_12_1_1) y = Add(c, n)"
    graph = assert_same_function(save(tmp_path, NCHW, body, rank=4))
    assert [conv.weight.shape for conv in convolutions(graph)] == [(3, 1, 2, 2), (3, 3, 2, 2)]


def test_choices_of_different_tensors_are_a_concat(tmp_path: Path) -> None:
    body = (
        f"c = Conv(x, w_3_3_1_1) r = Relu(c) {taken('k', 'x', 2, 1)} {taken('m', 'r', 2, 1)} "
        "y = Concat<axis=1>(k, m)"
    )
    assert_same_function(save(tmp_path, NCHW, body, rank=4))


SEQUENCES = {
    "chomp": f"c = Conv<pads=[4,4], dilations=[2]>(x, w_4_6_3) {taken('k', 'c', 2, 0, -4)} "
    "r = Relu(k) y = Conv(r, w_4_4_1)",
    "last step": f"c = Conv(x, w_4_6_3) r = Relu(c) {taken('k', 'r', 2, -1)} y = Conv(k, v_4_4_1)",
    "step in the middle": "r = Relu(x) i = Constant<value_ints=[5]>() k = Gather<axis=2>(r, i) "
    "y = Conv(k, w_4_6_1)",
}


@pytest.mark.parametrize("claim", SEQUENCES)
def test_choice_of_steps_is_the_same_function(tmp_path: Path, claim: str) -> None:
    assert_same_function(save(tmp_path, "float[N, 6, 16]", SEQUENCES[claim], rank=3))


def test_last_step_without_its_axis_is_the_same_function(tmp_path: Path) -> None:
    body = "r = Relu(x) i = Constant<value_int=-1>() k = Gather<axis=2>(r, i) y = Gemm(k, w_6_4)"
    assert_same_function(save(tmp_path, "float[N, 6, 16]", body, rank=2))


def test_weights_of_a_chain_of_choices_are_ones_and_zeros(tmp_path: Path) -> None:
    body = f"{CROP} {taken('m', 'k', 2, 1, step=2)} y = Relu(m)"
    (conv,) = convolutions(assert_same_function(save(tmp_path, NCHW, body, rank=4)))
    assert np.unique(conv.weight).tolist() == [0, 1]
    assert conv.weight.sum(axis=(1, 2, 3)).tolist() == [1, 1, 1]
    assert conv.stride == (2, 1)


def test_zeros_that_take_cycles_are_told(tmp_path: Path) -> None:
    def notes(body: str) -> tuple[str, ...]:
        return load(save(tmp_path, NCHW, body, rank=4)).notes

    (folded,) = notes(FOLDED["crop"][0])
    assert "the crop before it became a kernel of 6 x 5, whose zeros take cycles" in folded
    (kept,) = notes(KEPT["crop before pads"])
    assert "pixels are chosen by a layer with a kernel of 4 x 4, whose zeros take cycles" in kept
    assert notes(FOLDED["Focus"][0]) == notes(FOLDED["end of a Conv"][0]) == ()
