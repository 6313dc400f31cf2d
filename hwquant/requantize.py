"""The integers of one MAC layer: weight codes, multiplier, bias, shift and proved bounds."""

import math
from dataclasses import dataclass

import numpy as np

from hwquant.activation import FULL_SCALE
from hwquant.ir import (
    Activation,
    Arithmetic,
    FloatArray,
    IntArray,
    LevelTables,
    MacLayer,
    ProductTable,
    Residual,
    Tensor,
)
from hwquant.lower import FloatMac
from hwquant.moments import tap_correlation
from hwquant.power import Codebook, digit_weights
from hwquant.ranges import Coding

MULTIPLIER_BITS = 16
MAX_SHIFT = 40
CARRY_SWEEPS = 2  # over a kernel's taps; hardly a code changes after the second
SCALES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)  # of a channel's largest weight
SUM_BITS = 46  # of a bias before the shift, so that the sum with two products fits 48 bits
LOGIT_BITS = 20  # the last layer's largest value, whatever its real unit


@dataclass(frozen=True, eq=False)
class Numbers:
    """What every layer of a network shares: ``products`` is ``int[Lw + 1, Lx + 1]``."""

    products: IntArray
    skip_levels: IntArray
    part_shift: int
    has_bias_correction: bool

    @property
    def digit_top(self) -> int:
        """Largest digit of an activation, Lx."""
        return self.products.shape[1] - 1

    def full_scale(self, parts: int) -> int:
        """F(parts): value of a code whose digits all have level 1."""
        return int(digit_weights(parts, self.part_shift).sum())


def product_matrix(arithmetic: Arithmetic) -> IntArray:
    """All products of two digits, whichever way the hardware makes them."""
    match arithmetic:
        case ProductTable():
            return arithmetic.products
        case LevelTables():
            return np.outer(arithmetic.weight_levels, arithmetic.act_levels)


@dataclass(frozen=True, eq=False)
class Kernel:
    """Weights in units of the source's scale: codes ``int[PW, M, C, KH, KW]`` and their scale."""

    digits: IntArray
    scale: FloatArray
    values: FloatArray  # what the codes stand for, float[M, C, KH, KW]


def encode_weights(weight: FloatArray, book: Codebook) -> Kernel:
    """Map weights to signed codes; a channel of zeros gets codes of zero.

    Every output channel takes, of ``SCALES`` times its largest weight, the scale whose codes have
    the least assumed output error.

    Source
    ------
    PowerQuant, eq. 2 and algorithm 1. Differs: scale per output channel, chosen by the error
    instead of the maximum; errors carried from tap to tap (`_round`).
    """
    taps = weight.reshape(*weight.shape[:2], -1)
    correlation = tap_correlation((weight.shape[2], weight.shape[3]))
    largest = np.abs(weight).max(axis=(1, 2, 3))
    scale, ranks = largest.copy(), np.zeros(taps.shape, dtype=np.int64)
    least = np.full(len(weight), np.inf)
    for share in SCALES:
        trial = np.where(largest > 0, largest, 1.0) * share
        trial_ranks, cost = _round(taps / trial[:, None, None], book, correlation)
        better = cost * trial**2 < least
        least[better] = (cost * trial**2)[better]
        ranks[better], scale[better] = trial_ranks[better], (largest * share)[better]
    ranks = ranks.reshape(weight.shape)
    digits = np.moveaxis(book.digits[ranks], -1, 0)
    return Kernel(digits, scale, book.values[ranks] * scale[:, None, None, None])


def _round(
    taps: FloatArray, book: Codebook, correlation: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Round ``float[M, C, K]`` to ranks of codes, and tell each channel's assumed output error.

    Every weight is rounded by eq. 2 first. Then each tap of a kernel is rounded again, to the level
    nearest to its value less what the errors of the kernel's other taps already do to the output:
    neighbouring pixels are alike, so errors of opposite sign cancel. No step makes the assumed
    output error ``e @ correlation @ e`` larger.

    Source
    ------
    SQuant (Cong et al. 2022) brings the sum of a kernel's errors to zero. Differs: a graded
    correlation (``TAP_CORRELATION``), and coordinate descent instead of flips.
    """
    ranks = book.rank(taps)
    errors = book.values[ranks] - taps
    nearest = (book.values[1:] + book.values[:-1]) / 2
    count = taps.shape[2]
    for tap in list(range(count)) * (CARRY_SWEEPS if count > 1 else 0):
        carried = errors @ correlation[tap] - errors[:, :, tap]
        wanted = taps[:, :, tap] - carried
        ranks[:, :, tap] = np.searchsorted(nearest, wanted, side="right")
        errors[:, :, tap] = book.values[ranks[:, :, tap]] - taps[:, :, tap]
    return ranks, ((errors @ correlation) * errors).sum(axis=(1, 2))


@dataclass(frozen=True, eq=False)
class _Bound:
    """Largest and smallest sum that any input can reach, in any order of summation."""

    high: IntArray
    low: IntArray


def mac_layer(
    mac: FloatMac,
    source: Coding,
    source_tensor: Tensor,
    skip: Coding | None,
    output: Coding | None,
    tensor: Tensor,
    weight_book: Codebook,
    activation: Activation | None,
    numbers: Numbers,
) -> MacLayer:
    """Turn a layer into integers; ``output`` is ``None`` for the last layer."""
    folded = mac.weight * source.scale[:, None, None]
    kernel = encode_weights(folded, weight_book)
    step = kernel.scale / (
        numbers.products[-1, -1]
        * numbers.full_scale(weight_book.parts)
        * numbers.full_scale(source.book.parts)
    )  # real value of one unit of the accumulator
    bias = _bias(mac, source, _inside(mac, source_tensor, tensor), kernel, step, numbers)
    skip_step = np.zeros_like(bias)
    if skip is not None and mac.skip is not None:
        skip_step, skip_bias = _skip(skip, len(bias), mac.skip.channel_offset, numbers)
        bias = bias + skip_bias
    acc = _acc_bound(kernel.digits, source.book.parts, _window(mac), numbers)
    skip_top = _skip_top(skip, numbers)
    if output is None:
        reach = np.maximum(np.abs(acc.high), np.abs(acc.low)) * step + skip_top * skip_step
        unit = np.full_like(bias, max(float((reach + np.abs(bias)).max()), 1e-9) / 2**LOGIT_BITS)
    else:
        unit = output.scale / FULL_SCALE
        bias = bias - output.zero
    shift = _shift(np.concatenate([step, skip_step]) / np.tile(unit, 2), bias / unit)
    multiplier = _scaled(step / unit, shift)
    skip_multiplier = _scaled(skip_step / unit, shift)
    int_bias = _scaled(bias / unit, shift)
    half = (1 << shift) >> 1
    high = (acc.high * multiplier + skip_top * skip_multiplier + int_bias + half) >> shift
    low = (acc.low * multiplier + int_bias + half) >> shift
    return MacLayer(
        name=mac.name,
        source=mac.source,
        weights=kernel.digits,
        kernel=mac.kernel,
        shared=mac.shared,
        stride=mac.stride,
        pads=mac.pads,
        multiplier=multiplier,
        bias=int_bias,
        shift=shift,
        residual=mac.skip
        and Residual(mac.skip.source, mac.skip.stride, mac.skip.channel_offset, skip_multiplier),
        activation=activation,
        acc_bits=_signed_bits(acc.high, acc.low),
        value_bits=_signed_bits(high, low),
        output=tensor,
    )


def _bias(
    mac: FloatMac,
    source: Coding,
    inside: FloatArray,
    kernel: Kernel,
    step: FloatArray,
    numbers: Numbers,
) -> FloatArray:
    """Real bias behind the accumulator: the layer's own, zero points, and the bias correction.

    Source
    ------
    Nagel et al. 2019, section 4.2, exact over the assumed distributions: the expected sum of
    products as the array computes them (clipping and table rounding included) is moved onto the
    expected sum of the float layer. Differs: a tap that hangs over the image at some positions
    counts there as padding (``inside``, ``float[KH, KW]``). Zero points: PowerQuant, eq. 5.
    """
    window = _window(mac)
    if not numbers.has_bias_correction:
        sums = (kernel.values / source.scale[:, None, None]).sum(axis=(2, 3))
        return mac.bias + window * sums @ source.zero
    wanted = (mac.weight * inside).sum(axis=(2, 3)) @ source.mean
    pixels = _expected_sum(kernel.digits, source.mass, source, inside, numbers)
    pads = np.eye(len(source.book.values))[source.pad_ranks()]
    padding = _expected_sum(kernel.digits, pads, source, 1 - inside, numbers)
    return mac.bias + window * (wanted - (pixels + padding) * step)


def _expected_sum(
    digits: IntArray, mass: FloatArray, source: Coding, share: FloatArray, numbers: Numbers
) -> FloatArray:
    """Mean accumulator when codes have probabilities ``mass`` and taps count by ``share``."""
    digit_mass = source.book.digit_mass(mass, numbers.digit_top)  # [parts, C, Lx + 1]
    channels = np.arange(len(mass))[:, None, None]
    acc = np.zeros(digits.shape[1])
    for i, weight_digits in enumerate(digits):
        for j, odds in enumerate(digit_mass):
            means = odds @ numbers.products.T  # [C, Lw + 1]
            power = len(digits) - 1 - i + len(digit_mass) - 1 - j
            terms = np.sign(weight_digits) * means[channels, np.abs(weight_digits)] * share
            acc += 2.0 ** (numbers.part_shift * power) * terms.sum(axis=(1, 2, 3))
    return acc


def _window(mac: FloatMac) -> int:
    """How many positions share one weight."""
    return math.prod(mac.kernel) if mac.shared else 1


def _inside(mac: FloatMac, source: Tensor, output: Tensor) -> FloatArray:
    """Share of output pixels for which a tap lies inside the image; ``float[KH, KW]``."""

    def axis(size: int, count: int, kernel: int, stride: int, pad: int) -> FloatArray:
        at = np.arange(count)[:, None] * stride - pad + np.arange(kernel)
        return ((at >= 0) & (at < size)).mean(axis=0)

    if mac.shared:
        return np.ones((1, 1))  # pools have no padding
    rows = axis(source.height, output.height, mac.kernel[0], mac.stride[0], mac.pads[0])
    columns = axis(source.width, output.width, mac.kernel[1], mac.stride[1], mac.pads[1])
    return np.outer(rows, columns)


def _skip(
    skip: Coding, channels: int, offset: int, numbers: Numbers
) -> tuple[FloatArray, FloatArray]:
    """Real value of one unit of the skip's level, and the bias it brings; ``float[M]`` each."""
    parts = skip.book.parts
    step, bias = np.zeros(channels), np.zeros(channels)
    span = slice(offset, offset + len(skip.zero))
    step[span] = skip.scale / (numbers.skip_levels[-1] * numbers.full_scale(parts))
    if numbers.has_bias_correction:
        weights = digit_weights(parts, numbers.part_shift)
        odds = skip.book.digit_mass(skip.mass, numbers.digit_top)
        levels = np.einsum("pcq,q,p->c", odds, numbers.skip_levels, weights)
        bias[span] = skip.mean - levels * step[span]
    else:
        bias[span] = skip.zero
    return step, bias


def _skip_top(skip: Coding | None, numbers: Numbers) -> int:
    if skip is None:
        return 0
    return int(numbers.skip_levels[-1]) * numbers.full_scale(skip.book.parts)


def _acc_bound(digits: IntArray, act_parts: int, window: int, numbers: Numbers) -> _Bound:
    """Bound the accumulator per output channel, whatever the order of taps and digits.

    Products grow with the activation digit, so every tap is worst at Lx; positive and negative
    products are bounded apart, so no partial sum exceeds them either.
    """
    worst = numbers.products[:, -1][np.abs(digits)]
    weights = digit_weights(digits.shape[0], numbers.part_shift)[:, None]
    factor = numbers.full_scale(act_parts) * window

    def total(sign: int) -> IntArray:
        chosen = np.where(np.sign(digits) == sign, worst, 0)
        return (chosen.sum(axis=(2, 3, 4)) * weights).sum(axis=0) * factor

    return _Bound(total(1), -total(-1))


def _shift(ratios: FloatArray, bias: FloatArray) -> int:
    """Largest shift at which multipliers and biases fit their bits."""
    for shift in range(MAX_SHIFT, 0, -1):
        fits = _scaled(ratios, shift).max() < 2**MULTIPLIER_BITS
        if fits and np.abs(bias).max() * 2.0**shift < 2 ** (SUM_BITS - 1):
            return shift
    return 0


def _scaled(values: FloatArray, shift: int) -> IntArray:
    return np.round(values * 2.0**shift).astype(np.int64)


def _signed_bits(high: IntArray, low: IntArray) -> int:
    """Bits of a signed number that holds ``low..high``, and -high and -low too."""
    largest = max(int(np.abs(high).max()), int(np.abs(low).max()))
    return largest.bit_length() + 1
