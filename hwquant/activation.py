"""Activation units as data: the exact staircase, and its segmented look-up."""

import numpy as np

from hwquant.ir import Activation, PowerTable, Thresholds
from hwquant.power import Codebook

FRACTION_BITS = 16  # v is in units of the output's range / 2**16
FULL_SCALE = 1 << FRACTION_BITS
MAX_CODE_ERROR = 1  # allowed to a PowerTable, in steps of the oracle's staircase


def thresholds(book: Codebook, act_bits: int) -> Thresholds:
    """Build the exact staircase from v to packed code.

    A threshold is the ceiling of its real position, so ``v`` reaches it exactly when ``v`` reaches
    the position. Of codes that begin at the same integer only the highest is kept.

    Source
    ------
    PowerQuant, algorithm 2: the power function and the rounding of the next layer's input fused
    with ReLU. One digit: steps at ``((q - 1/2) / Lx)**(1/a)``; two: midway between levels.
    """
    positions = np.ceil(book.edges * FULL_SCALE).astype(np.int64)
    codes = book.packed(act_bits)
    last = np.append(positions[1:] != positions[:-1], True)
    first_code = int(codes[0])
    return Thresholds(
        tuple(int(p) for p in positions[last]),
        (first_code, *(int(c) for c in codes[1:][last])),
    )


def power_table(oracle: Thresholds) -> PowerTable:
    """Build the smallest segmented look-up that is within ``MAX_CODE_ERROR`` of the oracle.

    Entries are the oracle's code at the middle of their segment.

    Error
    -----
    At most ``MAX_CODE_ERROR`` steps of the staircase, exhaustive over ``0..2**16`` and by
    saturation everywhere (`max_code_error`).
    """
    for mantissa_bits in range(1, FRACTION_BITS):
        table = _table(oracle, mantissa_bits)
        if max_code_error(table, oracle) <= MAX_CODE_ERROR:
            return table
    raise AssertionError("a table of 2**15 segments an octave is exact")


def max_code_error(table: PowerTable, oracle: Thresholds) -> int:
    """Largest distance, in steps of the oracle's staircase, over every v in ``0..2**16``."""
    v = np.minimum(np.arange(FULL_SCALE + 1), 2**table.value_bits - 1)
    lengths = np.frexp(v.astype(np.float64))[1]  # bit_length
    octave = np.maximum(0, lengths - 1 - table.mantissa_bits)
    address = (octave << table.mantissa_bits) + (v >> octave)
    codes = np.array(table.codes)[address]
    steps = np.searchsorted(np.array(oracle.codes), codes)
    exact = np.searchsorted(np.array(oracle.thresholds), v, side="right")
    return int(np.abs(steps - exact).max())


def build(book: Codebook, act_bits: int, kind: str) -> Activation:
    """Build the activation unit called ``kind``: ``thresholds`` or ``table``."""
    oracle = thresholds(book, act_bits)
    return oracle if kind == "thresholds" else power_table(oracle)


def _table(oracle: Thresholds, mantissa_bits: int) -> PowerTable:
    count = (FRACTION_BITS - mantissa_bits + 1) << mantissa_bits
    address = np.arange(count)
    octave = np.maximum(0, (address >> mantissa_bits) - 1)
    first = (address - (octave << mantissa_bits)) << octave
    middle = first + ((1 << octave) >> 1)
    codes = np.array(oracle.codes)
    steps = np.searchsorted(np.array(oracle.thresholds), middle, side="right")
    return PowerTable(FRACTION_BITS, mantissa_bits, tuple(int(c) for c in codes[steps]))
