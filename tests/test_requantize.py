"""Claims about the integers of one MAC layer."""

from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pytest

from hwquant.ir import INPUT, IntArray, MacLayer, Tensor, Thresholds
from hwquant.power import (
    Codebook,
    Grid,
    activation_codebook,
    detail_codebook,
    digit_weights,
    level_tables,
    product_table,
    weight_codebook,
)
from hwquant.quantizer.lower import FloatMac, Skip
from hwquant.quantizer.ranges import Coding
from hwquant.quantizer.requantize import (
    Kernel,
    Numbers,
    Operand,
    Output,
    acc_step,
    array_sums,
    encode_weights,
    largest_shift,
    mac_layer,
    product_matrix,
    rounding_bias,
)

WEIGHTS, ACTS, SHIFT = Grid("power", 0.7, 7), Grid("power", 0.6, 15), 3
TABLES = {"product": product_table(WEIGHTS, ACTS, 6), "levels": level_tables(WEIGHTS, ACTS)}
NUMBERS = {name: Numbers.of(table, WEIGHTS, ACTS, SHIFT) for name, table in TABLES.items()}
BOOKS = {
    "plain": activation_codebook(ACTS, 1, SHIFT),
    "wide": activation_codebook(ACTS, 2, SHIFT),
    "detailed": detail_codebook(ACTS),
}
KERNELS = {parts: weight_codebook(WEIGHTS, parts, SHIFT) for parts in (1, 2)}
CHANNELS, OUTPUTS = 6, 4
Number = TypeVar("Number", np.float64, np.int64)


def mac(groups: int = 1, seed: int = 1, reads: str = "before") -> FloatMac:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(OUTPUTS, CHANNELS // groups, 1, 1))
    return FloatMac(
        name="m",
        source=reads,
        weight=weight,
        bias=rng.normal(size=OUTPUTS),
        kernel=(1, 1),
        shared=False,
        stride=(1, 1),
        pads=(0, 0, 0, 0),
        groups=groups,
        skip=None,
        gate=None,
        function=None,
        tensor="m",
    )


def coding(book: Codebook, channels: int = CHANNELS, zero: float = -0.3) -> Coding:
    scale = np.random.default_rng(2).uniform(0.5, 2, channels)
    return Coding(np.full(channels, zero), scale, book)


def encoded(layer: FloatMac, source: Coding, parts: int) -> Kernel:
    each = layer.weight.shape[1]
    moment = np.broadcast_to(np.eye(each), (layer.groups, each, each))
    return encode_weights(layer, source, KERNELS[parts], moment, "second_order")


def sums(
    layer: FloatMac, kernel: Kernel, source: Coding, ranks: IntArray, of: npt.NDArray[Number]
) -> npt.NDArray[Number]:
    """Add the products ``of`` digits, ``[C, n] -> [M, n]``, one by one, as accumulators do."""
    book = source.book
    read = book.digits[:, :1] if book.is_detailed else book.digits
    total: npt.NDArray[Number] = np.zeros((OUTPUTS, ranks.shape[1]), of.dtype)
    each = CHANNELS // layer.groups
    is_truncated = layer.source == INPUT
    for (part, output, channel, _, _), digit in np.ndenumerate(kernel.digits):
        group = output // (OUTPUTS // layer.groups)
        for at, digits in enumerate(read[ranks[group * each + channel]].T):
            place = len(kernel.digits) - 1 - part + read.shape[1] - 1 - at - is_truncated
            if place >= 0:
                total[output] += np.sign(digit) * of[abs(digit)][digits] * 2 ** (SHIFT * place)
    return total


def random_ranks(book: Codebook, count: int = 300) -> IntArray:
    """Codes of every channel, small ones more often."""
    rng = np.random.default_rng(3)
    return book.rank(rng.beta(1, 3, (CHANNELS, count)))


CASES = [
    (table, kind, parts, groups, reads)
    for table in TABLES
    for kind in BOOKS
    for parts in KERNELS
    for groups in (1, 2)
    for reads in ("before", INPUT)
    if reads != INPUT or (kind, parts, groups) == ("wide", 2, 1)
]
each_case = pytest.mark.parametrize(("table", "kind", "parts", "groups", "reads"), CASES)


@each_case
def test_rounding_bias_is_the_mean_error_of_rounded_products(
    table: str, kind: str, parts: int, groups: int, reads: str
) -> None:
    layer, source, numbers = mac(groups, reads=reads), coding(BOOKS[kind]), NUMBERS[table]
    kernel, ranks = encoded(layer, source, parts), random_ranks(BOOKS[kind])
    odds = np.eye(len(source.book.values))[ranks].mean(axis=1)
    error = sums(layer, kernel, source, ranks, numbers.products - numbers.ideal)
    want = error.mean(axis=1) * acc_step(kernel, source, numbers)
    found = rounding_bias(source, kernel, odds, numbers)
    np.testing.assert_allclose(found, want, rtol=1e-9)
    assert np.abs(found).max() > 1e-6


@each_case
def test_ideal_products_add_up_to_the_real_sum(
    table: str, kind: str, parts: int, groups: int, reads: str
) -> None:
    """A step of the accumulator times the sum is that of decoded weights and decoded codes.

    So far as the layer multiplies them.
    """
    layer, numbers = mac(groups, reads=reads), NUMBERS[table]
    source = coding(BOOKS[kind], zero=0.0)
    kernel, ranks = encoded(layer, source, parts), random_ranks(BOOKS[kind], 20)
    step = acc_step(kernel, source, numbers)[:, None]
    found = sums(layer, kernel, source, ranks, numbers.ideal) * step
    given = ranks[:, None, None]  # 20 pixels of an image
    made = array_sums(source, kernel, source.decode_read(given), given, numbers)
    made = made[:, 0, 0] - layer.bias[:, None]
    np.testing.assert_allclose(found, made, rtol=1e-4, atol=1e-5)  # float32
    real = source.scale[:, None] * source.book.read_values[ranks]
    grouped = real.reshape(groups, CHANNELS // groups, -1).repeat(OUTPUTS // groups, axis=0)
    want = np.einsum("mc,mcn->mn", kernel.values[:, :, 0, 0], grouped)
    if reads == INPUT:
        assert 0 < np.abs(found - want).max() < 0.05 * np.abs(want).max()
    else:
        np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-9)


@each_case
def test_accumulator_bound_holds_and_is_reached(
    table: str, kind: str, parts: int, groups: int, reads: str
) -> None:
    layer, source, numbers = mac(groups, reads=reads), coding(BOOKS[kind]), NUMBERS[table]
    kernel = encoded(layer, source, parts)
    made = made_layer(layer, source, kernel, numbers)
    digits = np.einsum("pmcyx,p->mcyx", kernel.digits, digit_weights(parts, SHIFT))
    top = len(source.book.values) - 1
    reached = 0
    for output in range(OUTPUTS):
        group = output // (OUTPUTS // groups)
        for sign in (1, -1):
            ranks = np.zeros((CHANNELS, 1), np.int64)
            span = slice(group * (CHANNELS // groups), (group + 1) * (CHANNELS // groups))
            ranks[span, 0] = np.where(sign * digits[output, :, 0, 0] > 0, top, 0)
            acc = int(np.abs(sums(layer, kernel, source, ranks, numbers.products)[output, 0]))
            reached = max(reached, acc)
    assert reached < 2 ** (made.acc_bits - 1)
    if parts == 1:
        assert reached >= 2 ** (made.acc_bits - 2)


def made_layer(
    layer: FloatMac,
    source: Coding,
    kernel: Kernel,
    numbers: Numbers,
    operand: Operand | None = None,
    unit: float = 1e-4,
) -> MacLayer:
    output = Output(np.zeros(OUTPUTS), np.full(OUTPUTS, unit), Thresholds((1,), (0, 1)))
    tensor = Tensor("m", OUTPUTS, 1, 1, 1, np.zeros(OUTPUTS, np.int64))
    return mac_layer(layer, source, kernel, operand, np.zeros(OUTPUTS), output, tensor, numbers)


def values(made: MacLayer, acc: IntArray, skip: IntArray) -> IntArray:
    """What `semantics.md` makes of accumulators and operand levels, ``int[M, n]`` each."""
    if made.gate is not None:
        acc = (acc + made.gate.offset[:, None]) * skip
    total = acc * made.multiplier[:, None] + made.bias[:, None]
    if made.residual is not None:
        total = total + skip * made.residual.multiplier[:, None]
    return (total + (1 << made.shift >> 1)) >> made.shift


@pytest.mark.parametrize("kind", BOOKS)
@pytest.mark.parametrize("beside", [None, "skip", "gate"])
def test_values_stand_for_what_the_float_layer_computes(kind: str, beside: str | None) -> None:
    numbers = Numbers.of(product_table(WEIGHTS, ACTS, 12), WEIGHTS, ACTS, SHIFT)
    source = coding(BOOKS["wide"])
    layer = mac()
    if beside == "skip":
        layer = replace(layer, skip=Skip("o", (1, 1), 0))
    if beside == "gate":
        layer = replace(layer, gate="o")
    zero = 0.0 if beside == "gate" else -0.4
    operand = Operand("o", coding(BOOKS[kind], OUTPUTS, zero))
    kernel, ranks = encoded(layer, source, 2), random_ranks(BOOKS["wide"], 50)
    made = made_layer(layer, source, kernel, numbers, operand if beside else None)
    acc = sums(layer, kernel, source, ranks, numbers.products)
    given = random_ranks(BOOKS[kind], 50)[:OUTPUTS]
    skip = numbers.levels(BOOKS[kind])[given] << (numbers.skip_shift if beside == "skip" else 0)
    found = values(made, acc, skip) * 1e-4
    real = source.zero[:, None] + source.scale[:, None] * source.book.values[ranks]
    other = operand.coding.zero[:, None] + operand.coding.scale[:, None] * BOOKS[kind].values[given]
    want = kernel.values[:, :, 0, 0] @ real + layer.bias[:, None]
    if beside is not None:
        want = want + other if beside == "skip" else want * other
    np.testing.assert_allclose(found, want, rtol=0, atol=0.02 * want.std())
    assert np.abs(values(made, acc, skip)).max() < 2 ** (made.value_bits - 1)


@pytest.mark.parametrize("zero", [-3.0, -0.3, 3.0])
@pytest.mark.parametrize("bias", [-50.0, 0.0, 50.0])
def test_bounds_hold_for_every_gate(zero: float, bias: float) -> None:
    """Also where the offset leaves the accumulator one sign: a gate of 0 still makes 0."""
    numbers = NUMBERS["product"]
    source = coding(BOOKS["plain"], zero=zero)
    layer = replace(mac(), gate="o", bias=np.full(OUTPUTS, bias))
    kernel = encoded(layer, source, 1)
    operand = Operand("o", coding(BOOKS["detailed"], OUTPUTS, 0.0))
    tensor = Tensor("m", OUTPUTS, 1, 1, 1, np.zeros(OUTPUTS, np.int64))
    levels = numbers.levels(BOOKS["detailed"])
    acc = sums(layer, kernel, source, random_ranks(BOOKS["plain"]), numbers.products)
    for correction in (-100.0, 0.0, 100.0):
        output = Output(np.zeros(OUTPUTS), np.full(OUTPUTS, 1e-2), Thresholds((1,), (0, 1)))
        made = mac_layer(
            layer, source, kernel, operand, np.full(OUTPUTS, correction), output, tensor, numbers
        )
        assert made.gate is not None
        for level in (int(levels.min()), int(levels.max())):
            found = values(made, acc, np.full_like(acc, level))
            assert np.abs(found).max() < 2 ** (made.value_bits - 1)
            gated = np.abs((acc + made.gate.offset[:, None]) * np.maximum(level, 1))
            assert gated.max() < 2 ** (made.gate.gated_bits - 1)


@pytest.mark.parametrize("kind", BOOKS)
@pytest.mark.parametrize("table", TABLES)
def test_operand_levels_are_proportional_to_the_values_of_codes(kind: str, table: str) -> None:
    numbers, book = NUMBERS[table], BOOKS[kind]
    levels = numbers.levels(book) / numbers.level_one(book)
    assert (np.diff(levels) >= 0).all()  # closer values of two digits may be rounded to one
    np.testing.assert_allclose(levels, book.values, rtol=0, atol=1e-3)


def test_product_matrix_of_levels_is_their_outer_product() -> None:
    table = level_tables(WEIGHTS, ACTS)
    want = np.outer(table.weight_levels, table.act_levels)
    np.testing.assert_array_equal(product_matrix(table), want)


def test_residual_weighs_about_what_a_product_weighs() -> None:
    for numbers in NUMBERS.values():
        skip, product = int(numbers.detail_tables[0, -1]), int(numbers.products[-1, -1])
        shifted = skip << numbers.skip_shift
        assert shifted.bit_length() == max(product.bit_length(), skip.bit_length())


@pytest.mark.parametrize("parts", KERNELS)
def test_kernel_values_are_what_its_digits_stand_for(parts: int) -> None:
    layer, source = mac(2), coding(BOOKS["plain"])
    kernel = encoded(layer, source, parts)
    levels = np.sign(kernel.digits) * WEIGHTS.levels[np.abs(kernel.digits)]
    places = digit_weights(parts, SHIFT)
    folded = np.einsum("pmcyx,p->mc", levels, places / places.sum()) * kernel.scale[:, None]
    unit = source.scale.reshape(2, 3).repeat(2, axis=0)
    np.testing.assert_allclose(kernel.values[:, :, 0, 0] * unit, folded, atol=1e-9)
    error = (np.abs(kernel.values - layer.weight)[:, :, 0, 0] * unit).max(axis=1)
    assert (error <= kernel.scale).all()


@pytest.mark.parametrize(("ratio", "shift"), [(3.0, 14), (3.0 * 2**14, 0), (3.0 * 2**30, 0)])
def test_shift_is_the_largest_at_which_multipliers_fit(ratio: float, shift: int) -> None:
    assert largest_shift(np.array([ratio, 1.0]), np.zeros(2)) == shift
