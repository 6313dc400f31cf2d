"""Segments of one rank each: as many comparisons after them as make the unit smallest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hwquant.activation.cost import table_cost
from hwquant.activation.window import Domain, spread
from hwquant.ir import IntArray, PowerTable

MAX_INDEX_BITS = 12


@dataclass(frozen=True)
class _Shape:
    index_bits: int
    shifts: tuple[int, ...]
    stages: int


def fit_table(given: Sequence[Domain]) -> list[PowerTable]:
    """Build the segmented look-ups of least cost that share a unit."""
    most = min(len(domain.steps) for domain in given)
    best: list[PowerTable] = []
    for stages in range(4):
        for index_bits in range(min(given[0].value_bits, MAX_INDEX_BITS) + 1):
            if (1 << stages) - 1 > most:
                continue
            shifts = longest_segments(
                given[0].value_bits,
                index_bits,
                lambda shift: max(_bad_end(domain, shift, stages) for domain in given),
            )
            if shifts:
                found = [_table(d, _Shape(index_bits, shifts, stages)) for d in given]
                if not best or table_cost(found) < table_cost(best):
                    best = found
    if not best:
        raise AssertionError("one segment a value is exact")
    return best


def longest_segments(
    value_bits: int, index_bits: int, bad_end: Callable[[int], int]
) -> tuple[int, ...]:
    """Choose the longest segments that serve, from the top down, or none.

    From the u that ``bad_end`` says, all segments of ``2**shift`` values serve.
    """
    shift = value_bits - index_bits
    shifts = [shift]
    while (begin := bad_end(shift)) > 0:
        lower = max((begin - 1).bit_length() - index_bits, 0)
        if lower >= shift:
            return ()
        shift = lower
        shifts.append(shift)
    return tuple(reversed(shifts))


def _bad_end(domain: Domain, shift: int, stages: int) -> int:
    """Return the u from which no segment of ``2**shift`` has more ranks than can be served."""
    low, high = domain.ranks[:: 1 << shift], domain.ranks[(1 << shift) - 1 :: 1 << shift]
    bad = np.flatnonzero(high > domain.farthest(stages)[low])
    return (int(bad[-1]) + 1) << shift if len(bad) else 0


def _table(domain: Domain, shape: _Shape) -> PowerTable:
    count = len(shape.shifts) << shape.index_bits
    found = spread(domain, _segments(domain.u, shape), count)
    made = found.window(shape.stages)
    return PowerTable(domain.low, domain.value_bits, made, shape.index_bits, shape.shifts)


def _segments(u: IntArray, shape: _Shape) -> IntArray:
    """Return every u's segment, range by range from the top down."""
    found = np.zeros_like(u)
    for at in reversed(range(len(shape.shifts))):
        end = 1 << (shape.index_bits + shape.shifts[at])
        found[:end] = (at << shape.index_bits) + (u[:end] >> shape.shifts[at])
    return found
