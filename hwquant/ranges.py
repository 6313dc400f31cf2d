"""How the codes of a tensor map to real values: static ranges, and the odds of every code."""

from dataclasses import dataclass

import numpy as np

from hwquant.ir import FloatArray, IntArray
from hwquant.moments import Spread
from hwquant.power import Codebook

RANGE_STDS = 4.0  # a range reaches to mean + 4 standard deviations (design.md, section 5)
CHANNEL_SHARE = 0.5  # of a channel's own range in its scale, the rest is the tensor's
NARROWEST_CHANNEL = 1 / 16  # of the tensor's range
SMALLEST_RANGE = 1e-6  # of a tensor that is constant


@dataclass(frozen=True, eq=False)
class Coding:
    """A tensor's codes: ``x = zero[c] + scale[c] * book.values[rank]``.

    ``mass`` (``float[C, n]``) is the probability of every code, ``mean`` (``float[C]``) that of x.
    """

    zero: FloatArray
    scale: FloatArray
    book: Codebook
    mass: FloatArray
    mean: FloatArray

    def pad_ranks(self) -> IntArray:
        """Rank of the code of real zero in each channel (saturating)."""
        return self.book.rank(-self.zero / self.scale)


def pixel_coding(low: FloatArray, high: FloatArray, book: Codebook, ranks: IntArray) -> Coding:
    """Code a sensor whose pixels lie in ``low..high``, all equally likely; ``ranks`` of each."""
    mass = np.bincount(ranks, minlength=len(book.values)) / len(ranks)
    return Coding(low, high - low, book, np.tile(mass, (len(low), 1)), (low + high) / 2)


def tensor_range(spread: Spread) -> tuple[FloatArray, FloatArray]:
    """Choose the range that a tensor's codes cover: zero points and scales, ``float[C]`` each.

    From 0 after ReLU and from the lowest channel's ``mean - 4 std`` without; to the highest
    channel's ``mean + 4 std`` or the activation's ceiling. Where a batch norm tells each channel's
    range apart, a channel's scale is the geometric mean of its own range and the tensor's: finer
    codes for small channels, at the price of a wider spread of the next layer's weights, into which
    the scales are folded.

    Source
    ------
    Nagel et al. 2019: section 5 (ranges from batch-norm statistics), section 4.1 (equalization; the
    geometric mean is SmoothQuant's, Xiao et al. 2023). Zero point: PowerQuant, eq. 5.
    """
    reach = RANGE_STDS * spread.std
    tops = np.minimum(spread.mean + reach, spread.high)
    zero = np.full_like(tops, max(float((spread.mean - reach).min()), spread.low))
    widest = max(float((tops - zero).max()), SMALLEST_RANGE)
    share = CHANNEL_SHARE if spread.is_stored else 0.0
    return zero, widest * np.maximum((tops - zero) / widest, NARROWEST_CHANNEL) ** share


def tensor_coding(spread: Spread, book: Codebook) -> Coding:
    """Code a tensor on its range, with the odds of every code under its distribution."""
    zero, scale = tensor_range(spread)
    edges = zero[:, None] + scale[:, None] * book.edges
    bounds = np.pad(spread.below(edges), ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))
    return Coding(zero, scale, book, np.diff(bounds, axis=1), spread.clipped().mean)
