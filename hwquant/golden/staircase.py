"""Staircases as golden applies them: from values to codes, by a table where it is small."""

from collections.abc import Callable
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from hwquant.ir import (
    Guess,
    IntArray,
    PowerNewton,
    PowerPade,
    PowerTable,
    Saturate,
    Slopes,
    Staircase,
    Thresholds,
)

Integers = npt.NDArray[np.integer[Any]]  # in the narrowest type that is proved to hold them
Stairs = Callable[[IntArray], Integers]  # from values, which it overwrites, to codes

TABLE_SPAN = 1 << 17  # of values that thresholds cover as a table; longer ones are searched


def staircase_of(activation: Staircase) -> Stairs:
    """Prepare a staircase once, for all batches."""
    match activation:
        case Saturate():
            top = activation.top
            return lambda values: np.clip(values, -top, top, out=values)
        case Thresholds():
            thresholds = np.array(activation.thresholds)
            low, high = int(thresholds[0]) - 1, int(thresholds[-1])
            codes = _codes(activation.codes)
            if high - low >= TABLE_SPAN:
                return lambda values: codes[np.searchsorted(thresholds, values, side="right")]
            values = np.arange(low, high + 1)
            return _tabulated(low, codes[np.searchsorted(thresholds, values, side="right")])
        case PowerTable() | PowerPade() | PowerNewton():
            return _tabulated(activation.low, _guessed(activation))
        case _:
            assert_never(activation)


def _tabulated(low: int, table: Integers) -> Stairs:
    """Look up; below ``low`` and above the table's end are the codes at its ends."""
    high = low + len(table) - 1
    return lambda values: np.take(
        table, np.subtract(np.clip(values, low, high, out=values), low, out=values), mode="wrap"
    )


def _codes(codes: tuple[int, ...]) -> Integers:
    return np.array(codes, np.min_scalar_type(max(codes)))


def _guessed(record: Guess) -> Integers:
    """Return the code of every u: the guess, its rank, and the comparisons from there."""
    u = np.arange(1 << record.value_bits)
    match record:
        case PowerTable():
            guesses = _segment(record, u)
        case PowerPade():
            guesses = _quotient(record, u)
        case PowerNewton():
            guesses = _root(record, u)
        case _:
            assert_never(record)
    window = record.window
    ranks = np.array(window.ranks)[guesses]
    if isinstance(record, PowerTable) and record.slopes is not None:
        ranks += _rise(record, record.slopes, guesses, u)
    thresholds = np.array(window.steps.thresholds)
    for stage in reversed(range(window.stages)):
        reached = thresholds[ranks + (1 << stage) - 1] <= u + record.low
        ranks += reached << stage
    return _codes(window.steps.codes)[ranks]


def _segment(record: PowerTable, u: IntArray) -> IntArray:
    ends = [1 << (record.index_bits + shift) for shift in record.shifts]
    ranges = np.searchsorted(ends, u, side="right")
    return (ranges << record.index_bits) + (u >> np.array(record.shifts)[ranges])


def _rise(record: PowerTable, slopes: Slopes, segments: IntArray, u: IntArray) -> IntArray:
    shifts = np.array(record.shifts)[segments >> record.index_bits]
    x = u % (1 << shifts) << slopes.offset_bits >> shifts
    return np.array(slopes.values)[segments] * x >> slopes.shift


def _quotient(record: PowerPade, u: IntArray) -> IntArray:
    x = u >> record.drop

    def horner(terms: tuple[int, ...]) -> IntArray:
        total = np.full_like(x, terms[-1])
        for term in reversed(terms[:-1]):
            total = (total * x >> record.x_bits) + term
        return total

    quotients = horner(record.numerator) // horner(record.denominator)
    return np.minimum(quotients, len(record.window.ranks) - 1)


def _root(record: PowerNewton, u: IntArray) -> IntArray:
    n = record.root
    given = (u >> record.drop | 1) ** record.power
    lengths = np.searchsorted(1 << np.arange(62), given, side="right")
    y = 1 << -(-lengths // n)
    for _ in range(record.iterations):
        y = ((n - 1) * y + given // y ** (n - 1)) // n
    return np.minimum(y, len(record.window.ranks) - 1)
