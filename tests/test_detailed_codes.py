"""Detailed codes: MAC layers read the first digit, residuals and gates the sum of both levels."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwquant import golden
from hwquant.errors import BadInput
from hwquant.ir import INPUT, ConcatLayer, Gate, MaxPoolLayer, Residual, Thresholds
from tests.by_hand import mac, network, tensor

DETAILED = replace(tensor(INPUT, (1, 1, 2), 2, pad=0b0111), is_detailed=True)


def test_a_mac_layer_reads_the_first_digit_of_a_detailed_code() -> None:
    layer = mac([[[[[1, 3]]]]], (1, 1, 2), pads=(0, 0, 0, 1))
    got = golden.simulate(network(DETAILED, [layer]), np.array([[[[0b0111, 0b1101]]]]))
    assert got.ravel().tolist() == [1 + 3 * 3, 3 + 3 * 1]


def test_a_residual_reads_both_digits_of_a_detailed_code_and_is_shifted() -> None:
    zero = np.zeros((1, 1, 1, 1, 1), int)
    first = mac(zero, (1, 1, 2), "first", activation=Thresholds((9,), (1, 2)))
    last = mac(zero, (1, 1, 2), source="first", residual=Residual(INPUT, (1, 1), 0, np.array([7])))
    graph = network(DETAILED, [first, last], skip_shift=3)
    got = golden.simulate(graph, np.array([[[[0b0111, 0b1100]]]]))
    assert got.ravel().tolist() == [7 * 8 * (10 + 5), 7 * 8 * (40 - 3)]


def test_a_gate_reads_both_digits_of_a_detailed_code_and_is_not_shifted() -> None:
    source = replace(DETAILED, width=1)
    zero = np.zeros((1, 1, 1, 1, 1), int)
    first = mac(zero, (1, 1, 1), "first", activation=Thresholds((9,), (1, 2)))
    gate = Gate(INPUT, np.array([2]), 16)
    last = mac(zero + 3, (1, 1, 1), source="first", gate=gate)
    graph = network(source, [first, last], skip_shift=3)
    assert golden.simulate(graph, np.array([[0b0111]])).item() == (3 * 1 + 2) * (10 + 5)


def test_codes_that_a_detailed_tensor_cannot_hold_are_refused_by_name() -> None:
    output = replace(DETAILED, name="first")
    first = mac(np.zeros((1, 1, 1, 1, 1), int), (1, 1, 2), "first", output=output)
    layers = [replace(first, activation=Thresholds((0, 1), (0b0001, 0b0100, 0b0000)))]
    with pytest.raises(BadInput, match="first: a code stands for -3; permitted 0 and up"):
        network(tensor(INPUT, (1, 1, 2)), layers)


def test_only_codes_of_two_digits_have_details() -> None:
    with pytest.raises(BadInput, match="input: detailed codes of parts=1; permitted 2"):
        replace(DETAILED, parts=1)


def test_pools_and_concats_keep_the_kind_of_codes() -> None:
    plain = replace(DETAILED, name="made", is_detailed=False)
    pool = MaxPoolLayer("made", INPUT, (1, 1), (1, 1), (0, 0, 0, 0), plain)
    with pytest.raises(BadInput, match=r"made: .* 2 digits, detailed; makes no .* 2 digits"):
        network(DETAILED, [pool])
    first = mac(np.zeros((1, 1, 1, 1, 1), int), (1, 1, 2), "a", activation=Thresholds((9,), (1, 2)))
    layers = [replace(first, name=name, output=replace(plain, name=name)) for name in "ab"]
    layers[1] = replace(layers[1], output=replace(DETAILED, name="b"))
    whole = replace(DETAILED, name="ab", channels=2)
    with pytest.raises(
        BadInput, match=r"ab: .* 2 digits, \(1, 1, 2\) of 2 digits, detailed; makes"
    ):
        network(tensor(INPUT, (1, 1, 2)), [*layers, ConcatLayer("ab", ("a", "b"), whole)])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"skip_shift": 32}, r"skip_shift=32; permitted 0\.\.31"),
        ({"detail_tables": np.zeros((2, 3), int)}, r"\(4,\) and \(2, 3\); act_bits=2"),
        ({"skip_levels": np.zeros(3, int)}, r"\(3,\) and \(2, 4\); act_bits=2"),
    ],
)
def test_tables_of_another_size_are_refused(changed: dict[str, Any], words: str) -> None:
    graph = network(tensor(INPUT, (1, 1, 1)), [mac([[[[[1]]]]], (1, 1, 1))])
    with pytest.raises(BadInput, match=words):
        replace(graph, **changed)
