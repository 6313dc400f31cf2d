"""Segments with slopes: ranks rise within them, so that fewer segments or comparisons serve."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import numpy as np

from hwquant.activation.cost import table_cost
from hwquant.activation.table import longest_segments
from hwquant.activation.window import Domain
from hwquant.ir import IntArray, PowerTable, Slopes, Window

INDEX_BITS = range(3, 9)
STAGES = range(3)
SLOPE_BITS = range(1, 4)  # a sum of three in a cycle: 178 MHz on ECP5; of four 122
OFFSET_BITS = range(1, 5)
RISES = range(3)  # of slope 1 over a whole segment, as a power of two


@dataclass(frozen=True)
class _Form:
    """Slopes as `Slopes` has them, and how many comparisons follow."""

    stages: int
    offset_bits: int
    slope_shift: int


def fit_linear(given: Sequence[Domain]) -> list[PowerTable] | None:
    """Build the segmented look-ups with slopes of least cost that share a unit, or ``None``."""
    codes = min(len(domain.oracle.codes) for domain in given)
    largest = max(given, key=lambda domain: len(domain.steps))  # whose cost stands for all
    best: tuple[int, tuple[int, ...], int, _Form] | None = None
    least = 0
    for stages, offset_bits, rise in product(STAGES, OFFSET_BITS, RISES):
        if 1 << stages > codes or rise > offset_bits:
            continue
        form = _Form(stages, offset_bits, offset_bits - rise)
        bad_ends = cache(partial(_bad_ends, given, form))
        for bits, index_bits in product(SLOPE_BITS, INDEX_BITS):
            if index_bits > given[0].value_bits:
                continue
            shifts = longest_segments(
                given[0].value_bits, index_bits, lambda shift: bad_ends(shift)[bits]
            )
            if shifts:
                shape = index_bits, shifts, bits, form
                price = table_cost([_table(largest, *shape)] * len(given))
                if best is None or price < least:
                    best, least = shape, price
    return [_table(domain, *best) for domain in given] if best else None


def _bad_ends(given: Sequence[Domain], form: _Form, shift: int) -> list[int]:
    """Return, for slopes of 0, 1, .. bits, the u from which all segments of ``2**shift`` serve."""
    ends = [0] * SLOPE_BITS.stop
    for domain in given:
        segments = np.unique(domain.steps >> shift)  # all others have one rank
        slopes, _ = _least_slopes(domain, segments, shift, form)
        for bits in SLOPE_BITS:
            bad = segments[slopes >> bits > 0]
            ends[bits] = max(ends[bits], int(bad.max(initial=-1)) + 1 << shift)
    return ends


def _least_slopes(
    domain: Domain, segments: IntArray, shift: int, form: _Form
) -> tuple[IntArray, IntArray]:
    """Return each segment's least slope that serves, or one too many bits, and its highest rank.

    Between a step and the next, or the segment's end, the rank is constant and a slope rises: it is
    lowest at the left and highest at the right.
    """
    steps = domain.steps[np.isin(domain.steps >> shift, segments)]
    left = np.unique(np.concatenate([steps, segments << shift]))
    segment = left >> shift
    right = np.minimum(np.append(left[1:], 1 << domain.value_bits), segment + 1 << shift) - 1
    rank = np.searchsorted(domain.steps, left, side="right")
    slopes = np.arange(1 << SLOPE_BITS[-1])
    rise_left, rise_right = (
        ((u % (1 << shift) << form.offset_bits >> shift)[:, None] * slopes) >> form.slope_shift
        for u in (left, right)
    )
    low, high = _begins(domain, form.stages)
    first = np.flatnonzero(np.diff(segment, prepend=-1))
    lowest = np.maximum.reduceat(low[rank][:, None] - rise_left, first)
    highest = np.minimum.reduceat(high[rank][:, None] - rise_right, first)
    serves = lowest <= highest
    least = np.where(serves.any(axis=1), serves.argmax(axis=1), len(slopes))
    return least, highest[np.arange(len(least)), serves.argmax(axis=1)]


def _begins(domain: Domain, stages: int) -> tuple[IntArray, IntArray]:
    """Return the lowest and the highest rank from which comparisons serve each rank, both rising.

    Comparisons from rank k end in k, in k + 2**stages - 1, or exactly.
    """
    first, last = domain.served
    reach = (1 << stages) - 1
    ranks = np.arange(len(first))
    low = np.searchsorted(np.minimum.accumulate(last[::-1])[::-1], ranks) - reach
    high = np.searchsorted(np.maximum.accumulate(first), ranks, side="right") - 1
    return np.maximum(low, 0), np.minimum(high, len(first) - 1 - reach)


def _table(
    domain: Domain, index_bits: int, shifts: tuple[int, ...], bits: int, form: _Form
) -> PowerTable:
    """Build the segments of every range; those that no u has are as the first that one has."""
    slopes, ranks = list[int](), list[int]()
    for at, shift in enumerate(shifts):
        unused = 1 << index_bits + shifts[at - 1] - shift if at else 0
        used = np.arange(unused, 1 << index_bits)
        for values, found in zip(
            (slopes, ranks), _least_slopes(domain, used, shift, form), strict=True
        ):
            values += np.pad(found, (unused, 0), "edge").tolist()
    rising = Slopes(tuple(slopes), bits, form.offset_bits, form.slope_shift)
    window = Window(tuple(ranks), form.stages, domain.oracle)
    return PowerTable(domain.low, domain.value_bits, window, index_bits, shifts, rising)
