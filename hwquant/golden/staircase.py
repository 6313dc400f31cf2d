"""Staircases as golden applies them: from values to codes, by a table where it is small."""

from collections.abc import Callable
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from hwquant.ir import IntArray, PowerTable, Saturate, Staircase, Thresholds

Integers = npt.NDArray[np.integer[Any]]  # in the narrowest type that is proved to hold them
Stairs = Callable[[IntArray], Integers]  # from values, which it overwrites, to codes

TABLE_SPAN = 1 << 17  # of values that a staircase covers as a table; a longer one is searched


def staircase_of(activation: Staircase) -> Stairs:
    """Prepare a staircase once, for all batches."""
    match activation:
        case Thresholds():
            thresholds = np.array(activation.thresholds)
        case PowerTable():
            address = np.arange(1, len(activation.codes))
            octave = np.maximum(0, (address >> activation.mantissa_bits) - 1)
            thresholds = (address - (octave << activation.mantissa_bits)) << octave
        case Saturate():
            top = activation.top
            return lambda values: np.clip(values, -top, top, out=values)
        case _:
            assert_never(activation)
    codes = np.array(activation.codes, np.min_scalar_type(max(activation.codes)))
    low, high = int(thresholds[0]) - 1, int(thresholds[-1])
    if high - low >= TABLE_SPAN:
        return lambda values: codes[np.searchsorted(thresholds, values, side="right")]
    table = codes[np.searchsorted(thresholds, np.arange(low, high + 1), side="right")]
    return lambda values: np.take(
        table, np.subtract(np.clip(values, low, high, out=values), low, out=values), mode="wrap"
    )
