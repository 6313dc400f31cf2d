"""The integers of one MAC layer: weight codes, multiplier, bias, shift and proved bounds."""

import math
from dataclasses import dataclass, replace

import numpy as np

from hwquant.float_graph import per_input
from hwquant.ir import (
    Arithmetic,
    FloatArray,
    Gate,
    IntArray,
    LevelTables,
    MacLayer,
    ProductTable,
    Residual,
    Staircase,
    Tensor,
    is_truncated,
)
from hwquant.power import Codebook, Grid, detail_tables, digit_weights, skip_levels
from hwquant.quantizer.calibrate import Values, convolve_layer
from hwquant.quantizer.lower import FloatMac
from hwquant.quantizer.ranges import Coding, Ranks
from hwquant.quantizer.rounding import Rounding, round_weights

MULTIPLIER_BITS = 16
MAX_SHIFT = 40
MAX_VALUE_SHIFT = 14  # so that a shifted value of 16 bits fits 30 bits, and its product 46
SUM_BITS = 46  # of a bias before the shift, so that the sum with two products fits 48 bits
TINY = 1e-30
LOGIT_BITS = 20  # the last layer's largest value, whatever its real unit


@dataclass(frozen=True, eq=False)
class Numbers:
    """What every layer of a network shares.

    ``products`` is ``int[Lw + 1, Lx + 1]``, ``ideal`` the same before rounding. ``skip_levels``
    (``int[Lx + 1]``) and ``detail_tables`` (``int[2, Lx + 1]``) decode operands beside the array; a
    residual's is shifted left by ``skip_shift``, so that it weighs about what a product weighs.
    """

    products: IntArray
    ideal: FloatArray
    skip_levels: IntArray
    detail_tables: IntArray
    skip_shift: int
    part_shift: int

    @staticmethod
    def of(arithmetic: Arithmetic, weights: Grid, acts: Grid, part_shift: int) -> "Numbers":
        """Gather what belongs to two grids."""
        products = product_matrix(arithmetic)
        ideal = np.outer(weights.levels, acts.levels) * products[-1, -1]
        levels, details = skip_levels(acts), detail_tables(acts)
        shift = max(0, int(products[-1, -1]).bit_length() - int(details[0, -1]).bit_length())
        return Numbers(products, ideal, levels, details, shift, part_shift)

    def full_scale(self, parts: int) -> int:
        """F(parts): value of a code whose digits all have level 1."""
        return int(digit_weights(parts, self.part_shift).sum())

    def levels(self, book: Codebook) -> IntArray:
        """Integer value of every code of an operand beside the array; ``int[n]``."""
        if book.is_value:
            return book.digits[:, 0]
        if book.is_detailed:
            return self.detail_tables[np.arange(2), book.digits].sum(axis=1)
        return self.skip_levels[book.digits] @ digit_weights(book.parts, self.part_shift)

    def level_one(self, book: Codebook) -> int:
        """Integer that stands for the end of the range."""
        if book.is_value:
            return int(book.digits[-1, 0])
        if book.is_detailed:
            return int(self.detail_tables[0, -1])
        return int(self.skip_levels[-1]) * self.full_scale(book.parts)


def product_matrix(arithmetic: Arithmetic) -> IntArray:
    """All products of two digits, whichever way the hardware makes them."""
    match arithmetic:
        case ProductTable():
            return arithmetic.products
        case LevelTables():
            return np.outer(arithmetic.weight_levels, arithmetic.act_levels)


@dataclass(frozen=True, eq=False)
class Kernel:
    """Weights as codes, ``int[PW, M, C / G, KH, KW]``, of the layer ``mac``.

    ``scale`` (``float[M]``) is that of the weights in units of the source's codes; ``values`` are
    the real weights that the codes stand for, ``float[M, C / G, KH, KW]``.
    """

    digits: IntArray
    scale: FloatArray
    values: FloatArray
    mac: FloatMac

    def is_truncated(self, source: Codebook) -> bool:
        """Whether products of last digits are left out, where ``source`` are the source's codes."""
        digits = len(self.digits), source.read_parts
        return is_truncated(self.mac.source, self.mac.groups, digits)

    def scaled(self, factor: float) -> "Kernel":
        """Keep the codes and let them stand for ``factor`` times as much."""
        return replace(self, scale=factor * self.scale, values=factor * self.values)


def encode_weights(
    mac: FloatMac, source: Coding, book: Codebook, moment: FloatArray, rounding: Rounding
) -> Kernel:
    """Choose the weight codes; ``moment`` is the covariance of the source's real values."""
    kernel = mac.weight.shape[2:]
    unit = _units(mac, source)
    folded = (mac.weight * unit).reshape(mac.groups, len(mac.weight) // mac.groups, -1)
    per_tap = np.repeat(source.scale, math.prod(kernel)).reshape(len(moment), -1)
    moment = moment / (per_tap[:, :, None] * per_tap[:, None, :])
    ranks, scale = round_weights(folded, book, moment, rounding, math.prod(kernel))
    ranks, scale = ranks.reshape(mac.weight.shape), scale.ravel()
    digits = np.moveaxis(book.digits[ranks], -1, 0)
    values = book.values[ranks] * scale[:, None, None, None] / unit
    return Kernel(digits, scale, values, mac)


def _units(mac: FloatMac, source: Coding) -> FloatArray:
    """Scale of the input that a weight multiplies, ``float[M, C / G, 1, 1]``."""
    return per_input(source.scale, mac.groups, len(mac.weight))[:, :, None, None]


@dataclass(frozen=True, eq=False)
class Operand:
    """A residual or gate operand: its coding, and the layer whose codes it reads."""

    name: str
    coding: Coding


@dataclass(frozen=True, eq=False)
class Output:
    """What the activation unit is given: v stands for ``zero + v * unit``; ``float[M]`` each."""

    zero: FloatArray
    unit: FloatArray
    activation: Staircase


@dataclass(frozen=True, eq=False)
class _Bound:
    """Largest and smallest sum that any input can reach, in any order of summation."""

    high: IntArray
    low: IntArray

    def gated(self, level: int) -> "_Bound":
        """Bound the sum times a gate of ``0..level``."""
        return _Bound(np.maximum(self.high * level, 0), np.minimum(self.low * level, 0))


def mac_layer(
    mac: FloatMac,
    source: Coding,
    kernel: Kernel,
    operand: Operand | None,
    correction: FloatArray,
    output: Output | None,
    tensor: Tensor,
    numbers: Numbers,
) -> MacLayer:
    """Turn a layer into integers; ``output`` is ``None`` for the last layer.

    ``operand`` is that of ``mac.skip`` or ``mac.gate``. ``correction`` (``float[M]``) is added to
    the layer's bias, behind the gate.
    """
    step = acc_step(kernel, source, numbers)
    zeros = per_input(source.zero, mac.groups, len(mac.weight))
    bias = mac.bias + _window(mac) * (kernel.values.sum(axis=(2, 3)) * zeros).sum(axis=1)
    acc = _acc_bound(kernel, source.book, numbers)
    levels = np.zeros(1, dtype=np.int64) if operand is None else numbers.levels(operand.coding.book)
    skip_step, skip_reach, offset = np.zeros_like(step), np.zeros_like(step), None
    value_shift = 0
    summed = acc
    if operand is not None and mac.gate is not None:
        offset = scaled(bias / np.maximum(step, TINY), 0)
        summed = _Bound(acc.high + offset, acc.low + offset).gated(int(levels.max()))
        step = step * operand.coding.scale / numbers.level_one(operand.coding.book)
        bias = np.zeros_like(bias)
    elif operand is not None and mac.skip is not None:
        span = slice(mac.skip.channel_offset, mac.skip.channel_offset + len(operand.coding.zero))
        book = operand.coding.book
        value_shift = _value_shift(operand.coding, step) if book.is_value else 0
        skip_shift = value_shift if book.is_value else numbers.skip_shift
        levels = levels << skip_shift
        level_one = numbers.level_one(book) << skip_shift
        skip_step[span] = operand.coding.scale / level_one
        skip_reach = skip_step * int(np.abs(levels).max())
        bias[span] += operand.coding.zero
    bias = bias + correction
    if output is None:
        reach = np.maximum(np.abs(summed.high), np.abs(summed.low)) * step + skip_reach
        unit = np.full_like(bias, max(float((reach + np.abs(bias)).max()), 1e-9) / 2**LOGIT_BITS)
    else:
        unit = output.unit
        bias = bias - output.zero
    shift = largest_shift(np.concatenate([step, skip_step]) / np.tile(unit, 2), bias / unit)
    multiplier = scaled(step / unit, shift)
    skip_multiplier = scaled(skip_step / unit, shift)
    int_bias = scaled(bias / unit, shift)
    half = (1 << shift) >> 1
    skip_high, skip_low = (
        (0, 0) if mac.gate is not None else (int(levels.max()), min(int(levels.min()), 0))
    )
    high = (summed.high * multiplier + skip_high * skip_multiplier + int_bias + half) >> shift
    low = (summed.low * multiplier + skip_low * skip_multiplier + int_bias + half) >> shift
    residual = gate = None
    if operand is not None and mac.skip is not None:
        skip = mac.skip
        residual = Residual(
            operand.name, skip.stride, skip.channel_offset, skip_multiplier, value_shift
        )
    elif operand is not None and offset is not None:
        plain = _signed_bits(acc.high + offset, acc.low + offset)
        gate = Gate(operand.name, offset, max(plain, _signed_bits(summed.high, summed.low)))
    return MacLayer(
        name=mac.name,
        source=mac.source,
        weights=kernel.digits,
        groups=mac.groups,
        kernel=mac.kernel,
        shared=mac.shared,
        stride=mac.stride,
        pads=mac.pads,
        multiplier=multiplier,
        bias=int_bias,
        shift=shift,
        residual=residual,
        gate=gate,
        activation=None if output is None else output.activation,
        acc_bits=_signed_bits(acc.high, acc.low),
        value_bits=_signed_bits(high, low),
        output=tensor,
    )


def _value_shift(values: Coding, step: FloatArray) -> int:
    """Shift of a residual of values that makes its multiplier about as large as the sums'."""
    unit = float(values.scale.max()) / int(values.book.digits[-1, 0])
    ratio = unit / max(float(step.max()), TINY)
    return min(max(0, int(math.log2(ratio))), MAX_VALUE_SHIFT)


def acc_step(kernel: Kernel, source: Coding, numbers: Numbers) -> FloatArray:
    """Real value of one unit of the accumulator, ``float[M]``."""
    digits = len(kernel.digits), source.book.read_parts
    whole = numbers.full_scale(digits[0]) * numbers.full_scale(digits[1])
    unit = 1 << numbers.part_shift if kernel.is_truncated(source.book) else 1
    return kernel.scale * unit / (numbers.products[-1, -1] * whole)


def array_sums(
    source: Coding, kernel: Kernel, read: Values, ranks: Ranks, numbers: Numbers
) -> Values:
    """Real sums and bias that a layer makes of codes, if products are not rounded.

    ``read`` are the real values that it reads of the codes ``ranks``. Returns ``[M, N, OH, OW]``.
    """
    mac = kernel.mac
    sums = convolve_layer(mac, read, kernel.values, mac.bias, source.padding())
    if kernel.is_truncated(source.book):
        weights, acts = (numbers.ideal[at] / numbers.ideal[-1, -1] for at in (np.s_[:, -1], -1))
        digits, place = kernel.digits[-1], numbers.full_scale(len(kernel.digits))
        scale = kernel.scale[:, None, None, None] / place / _units(mac, source)
        values = np.sign(digits) * weights[np.abs(digits)] * scale
        lasts = source.last_digits(acts / numbers.full_scale(source.book.parts))
        nothing = np.zeros_like(mac.bias)
        sums -= convolve_layer(mac, lasts.decode(ranks), values, nothing, lasts.padding())
    return sums


def rounding_bias(source: Coding, kernel: Kernel, mass: FloatArray, numbers: Numbers) -> FloatArray:
    """Mean real error that rounded products make in a layer's sums, ``float[M]``.

    ``mass`` (``float[C, n]``) is the probability of every code of the source.
    """
    top = numbers.products.shape[1] - 1
    digit_mass = source.book.digit_mass(mass, top)  # [digits read, C, Lx + 1]
    places = _places(kernel, source.book, numbers)
    errors = numbers.products - numbers.ideal
    total = np.zeros(kernel.digits.shape[1])
    every: IntArray = np.arange(mass.shape[0], dtype=np.int64)
    channels = per_input(every, kernel.mac.groups, len(total))[:, :, None, None]
    for i, weight_digits in enumerate(kernel.digits):
        for j, odds in enumerate(digit_mass):
            means = odds @ errors.T  # [C, Lw + 1]
            terms = np.sign(weight_digits) * means[channels, np.abs(weight_digits)]
            total += places[i, j] * terms.sum(axis=(1, 2, 3))
    return total * acc_step(kernel, source, numbers) * _window(kernel.mac)


def _window(mac: FloatMac) -> int:
    """How many positions share one weight."""
    return math.prod(mac.kernel) if mac.shared else 1


def _acc_bound(kernel: Kernel, book: Codebook, numbers: Numbers) -> _Bound:
    """Bound the accumulator per output channel, whatever the order of taps and digits.

    Products grow with the activation digit, so every tap is worst at Lx; positive and negative
    products are bounded apart, so no partial sum exceeds them either.
    """
    digits = kernel.digits
    worst = numbers.products[:, -1][np.abs(digits)]
    places = _places(kernel, book, numbers).sum(axis=1)[:, None] * _window(kernel.mac)

    def total(sign: int) -> IntArray:
        chosen = np.where(np.sign(digits) == sign, worst, 0)
        return (chosen.sum(axis=(2, 3, 4)) * places).sum(axis=0)

    return _Bound(total(1), -total(-1))


def _places(kernel: Kernel, book: Codebook, numbers: Numbers) -> IntArray:
    """Return what the product of two digits weighs in the accumulator: ``int[PW, digits read]``."""
    counts = len(kernel.digits), book.read_parts
    weights, codes = (digit_weights(count, numbers.part_shift) for count in counts)
    places = np.multiply.outer(weights, codes)
    if kernel.is_truncated(book):
        places >>= numbers.part_shift
        places[-1, -1] = 0
    return places


def largest_shift(ratios: FloatArray, bias: FloatArray) -> int:
    """Largest shift at which multipliers and biases fit their bits."""
    largest = float(np.abs(ratios).max())
    for shift in range(MAX_SHIFT, 0, -1):
        fits = round(largest * 2.0**shift) < 2**MULTIPLIER_BITS
        if fits and np.abs(bias).max() * 2.0**shift < 2 ** (SUM_BITS - 1):
            return shift
    return 0


def scaled(values: FloatArray, shift: int) -> IntArray:
    """Real numbers as integers in units of ``2**-shift``, rounded."""
    return np.round(values * 2.0**shift).astype(np.int64)


def _signed_bits(high: IntArray, low: IntArray) -> int:
    """Bits of a signed number that holds ``low..high``, and -high and -low too."""
    largest = max(int(np.abs(high).max()), int(np.abs(low).max()))
    return largest.bit_length() + 1
