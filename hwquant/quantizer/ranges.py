"""How the codes of a tensor map to real values: static ranges, and the odds of every code."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hwquant.float_graph import Relu
from hwquant.functions import bounds, evaluate, turning_point
from hwquant.ir import FloatArray, IntArray
from hwquant.power import Codebook
from hwquant.quantizer.blocks import by_channels
from hwquant.quantizer.calibrate import TINY, Spread, Values, column

Ranges = Literal["reach", "omse"]
Ranks = npt.NDArray[np.integer[Any]]  # positions in a codebook

SHORTEST_REACH = 3  # standard deviations, of codes of 3 bits and fewer
CHANNEL_SHARE = 0.5  # of a channel's own range in its scale, the rest is the tensor's
NARROWEST_CHANNEL = 1 / 16  # of the tensor's range
BINS = 1 << 14  # of a range, in which the values of synthetic images are looked up
TAIL = 0.999  # of a channel's samples, which the range reaches
HEAVIEST_TAIL = 1.5  # how much farther the range may reach for them
SMALLEST_RANGE = 1e-6  # of a tensor that is constant
CLIPS = tuple(step / 20 for step in range(4, 27))  # of the range's length; 1 is one of them
LIFTS = tuple(step / 20 for step in range(8))  # of the shortest channel's, of a lower end


@dataclass(frozen=True, eq=False)
class Coding:
    """A tensor's codes: ``x = zero[c] + scale[c] * book.values[rank]``.

    ``pad`` (``int[C]``) are the ranks of real zero, where they are not the nearest.
    """

    zero: FloatArray
    scale: FloatArray
    book: Codebook
    pad: IntArray | None = None

    def ranks(self, values: Values) -> Ranks:
        """Code of every value, ``[C, N, H, W]``, as its rank in the codebook (saturating).

        Error
        -----
        Of values within ``1 / BINS`` of the range from an edge, the code may be the neighbour's:
        they are looked up in bins, which is several times quicker than to search for the edges.
        """
        if self.book.is_value:
            top = int(self.book.digits[-1, 0])
            steps = np.round(
                (values - column(self.zero, values)) / column(self.scale / top, values)
            )
            return np.clip(steps, -top, top).astype(np.int32) + top
        end = float(self.book.edges[-1]) + 1 / BINS
        centres: FloatArray = (np.arange(BINS, dtype=np.float64) + 0.5) * (end / BINS)
        table = self.book.rank(centres).astype(np.int16)
        factor = BINS / end / self.scale
        found = np.empty(values.shape, np.int16)

        def work(part: slice) -> None:
            bins = values[part] * column(factor[part], values)
            bins -= column((factor * self.zero)[part], values)
            np.clip(bins, 0, BINS - 1, out=bins)
            found[part] = table[bins.astype(np.int32)]

        by_channels(len(values), values[0].size, work)
        return found

    def decode(self, ranks: Ranks) -> Values:
        """Real value of every code, all digits read: ``float32[C, N, H, W]``."""
        return self._real(self.book.values, ranks)

    def decode_read(self, ranks: Ranks) -> Values:
        """Real value of every code as a MAC layer reads it: ``float32[C, N, H, W]``."""
        return self._real(self.book.read_values, ranks)

    def pad_ranks(self) -> IntArray:
        """Rank of the code of real zero in each channel (saturating)."""
        return self.book.rank(-self.zero / self.scale) if self.pad is None else self.pad

    def padding(self) -> FloatArray:
        """Real value, ``float[C]``, that a MAC layer reads where a window hangs over the image."""
        return self.zero + self.scale * self.book.read_values[self.pad_ranks()]

    def last_digits(self, levels: FloatArray) -> "Coding":
        """Coding in which a code stands for its last digit, whose real values are ``levels``."""
        last = levels[self.book.digits[:, -1]]
        book = replace(self.book, values=last, read_values=last)
        return Coding(np.zeros_like(self.zero), self.scale, book, self.pad_ranks())

    def _real(self, values: FloatArray, ranks: Ranks) -> Values:
        table = values.astype(np.float32)
        real: Values = np.empty(ranks.shape, np.float32)

        def work(part: slice) -> None:
            single = table[ranks[part]]
            single *= column(self.scale[part], single)
            single += column(self.zero[part], single)
            real[part] = single

        by_channels(len(ranks), ranks[0].size, work)
        return real


def side_by_side(codings: Sequence[Coding]) -> Coding:
    """Coding of concatenated channels: every channel keeps its own zero and scale."""
    return Coding(
        np.concatenate([coding.zero for coding in codings]),
        np.concatenate([coding.scale for coding in codings]),
        codings[0].book,
    )


def tensor_range(spread: Spread, bits: int) -> tuple[FloatArray, FloatArray]:
    """Choose the range that a tensor's codes cover: zero points and scales, ``float[C]`` each.

    A channel reaches ``bits`` standard deviations from its mean, and farther if the tensor's
    typical channel has samples farther out. From the least value of the activation function, or
    from the lowest channel's lower end where there is none; to the function of the highest
    channel's upper end. Where a batch norm tells each channel's range apart and the function
    commutes with scales, a channel's scale is the geometric mean of its own range and the tensor's:
    finer codes for small channels, at the price of a wider spread of the next layer's weights, into
    which the scales are folded.

    Source
    ------
    Nagel et al. 2019: section 5 (ranges from batch-norm statistics), section 4.1 (equalization; the
    geometric mean is SmoothQuant's, Xiao et al. 2023). ACIQ (Banner et al. 2019): the best clip
    grows about linearly with the bits. Zero point: PowerQuant, eq. 5.
    """
    span = _reach(spread, bits) * spread.std
    low, top = spread.mean - span, spread.mean + span
    function = spread.function
    if function is None:
        zero = 0.0 if spread.samples.min() >= 0 else float(low.min())
    else:
        turn = turning_point(function)
        least = bounds(function)[0]
        ends = evaluate(function, np.stack([low, top]))
        zero = least if np.isfinite(least) else float(ends.min())
        top = ends[1] if turn is None else ends.max(axis=0)
    widest = max(float((top - zero).max()), SMALLEST_RANGE)
    share = CHANNEL_SHARE if spread.is_stored and scales_by_channel(spread) else 0.0
    scale = widest * np.maximum((top - zero) / widest, NARROWEST_CHANNEL) ** share
    return np.full_like(top, zero), scale


def least_error_range(spread: Spread, bits: int, book: Codebook) -> tuple[FloatArray, FloatArray]:
    """Choose the range whose codes miss the tensor's samples least: as `tensor_range` returns it.

    The squared error, summed over all channels, is least among ``CLIPS`` times the range of
    `tensor_range`, which is one of them. The lower end stays where the activation function or zero
    bounds the tensor, and else moves up by ``LIFTS``.

    Source
    ------
    OMSE (Choukroun et al. 2019), its clipping by least mean square error. Differs: synthetic
    samples, scales by channel as `tensor_range` has them, and a grid in place of a line search.
    """
    zero, scale = tensor_range(spread, bits)
    is_bound = zero[0] == 0 if spread.function is None else np.isfinite(bounds(spread.function)[0])
    least, best = math.inf, (zero, scale)
    for lift in (0.0,) if is_bound else LIFTS:
        for clip in CLIPS:
            if clip <= lift:
                continue
            up = lift * scale.min()
            trial = (zero + up, clip * scale - up)
            error = square_error(spread.samples, *trial, book)
            if error < least:
                least, best = error, trial
    return best


def square_error(samples: FloatArray, zero: FloatArray, scale: FloatArray, book: Codebook) -> float:
    """Squared error of samples, ``float[C, n]``, as MAC layers read their codes."""
    unit = (samples - zero[:, None]) / scale[:, None]
    return float((((book.read_values[book.rank(unit)] - unit) * scale[:, None]) ** 2).sum())


def _reach(spread: Spread, bits: int) -> float:
    """Return the standard deviations that a range reaches from a channel's mean."""
    reach = max(bits, SHORTEST_REACH)
    ends = np.quantile(spread.samples, TAIL, axis=1)
    tails = (ends - spread.mean) / (reach * spread.std + TINY)
    return reach * min(float(np.median(np.maximum(tails, 1.0))), HEAVIEST_TAIL)


def scales_by_channel(spread: Spread) -> bool:
    """Whether one staircase serves channels of different scales."""
    return spread.function is None or isinstance(spread.function, Relu)
