"""Segments: as many comparisons after them as make the unit smallest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwquant.activation.cost import cost
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
            shifts = _shifts(given, index_bits, stages)
            if shifts:
                found = [_table(d, _Shape(index_bits, shifts, stages)) for d in given]
                if not best or sum(map(cost, found)) < sum(map(cost, best)):
                    best = found
    if not best:
        raise AssertionError("one segment a value is exact")
    return best


def _shifts(given: Sequence[Domain], index_bits: int, stages: int) -> tuple[int, ...]:
    """Choose the longest segments whose ranks ``stages`` comparisons serve, from the top down."""
    shift = given[0].value_bits - index_bits
    shifts = [shift]
    while (begin := max(_bad_end(domain, shift, stages) for domain in given)) > 0:
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
