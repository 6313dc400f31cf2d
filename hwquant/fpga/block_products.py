"""Products in DSP blocks: the levels that a block multiplies, and its MACs a cycle.

A block is that of a 7 series, ``(d + a) * b`` added to the block before: ``d`` and ``a`` take
weights, ``b`` an activation. Where levels are small a block multiplies those of two rows at once:
one weight stands above the other, so far that a whole row's sum of the lower fits below.
"""

import numpy as np

from hwquant.errors import UnsupportedModel
from hwquant.ir import Arithmetic, LevelTables, ProductTable

_WEIGHT_BITS, _ACT_BITS = 25, 18  # a block's operands, both signed
_LUT_INPUTS = 6


def block_levels(arithmetic: Arithmetic) -> LevelTables:
    """Return the levels whose products are those of ``arithmetic``, exactly.

    Activations have no common divisor, so that their levels are as small as can be.

    Raises
    ------
    UnsupportedModel
        If products are not those of two levels, or levels are too wide for a block.
    """
    match arithmetic:
        case LevelTables():
            levels = arithmetic
        case ProductTable(products):
            largest = products[-1]
            acts = largest // max(1, int(np.gcd.reduce(largest)))
            weights = products[:, -1] // max(1, int(acts[-1]))
            levels = LevelTables(weights, acts)
            if (weights[:, np.newaxis] * acts != products).any():
                raise UnsupportedModel(
                    "products=dsp: the table of products is not made of two levels; needs whole "
                    "levels, uniform codes or --accumulate levels"
                )
    for name, found, most in (
        ("weight", weight_level_bits(levels), _WEIGHT_BITS),
        ("activation", act_level_bits(levels) + 1, _ACT_BITS),
    ):
        if found > most:
            raise UnsupportedModel(
                f"products=dsp: {name} levels of {found} bits with their sign; permitted 2..{most}"
            )
    return levels


def weight_level_bits(levels: LevelTables) -> int:
    """Return the bits of a weight's level with its sign."""
    return int(levels.weight_levels.max()).bit_length() + 1


def act_level_bits(levels: LevelTables) -> int:
    """Return the bits of an activation's level, which has no sign."""
    return int(levels.act_levels.max()).bit_length()


def is_decoded_in_memory(levels: LevelTables) -> bool:
    """Whether activations are decoded in block RAM, a block for two columns, and not in LUTs."""
    return len(levels.act_levels) > 1 << _LUT_INPUTS


def sum_bits(levels: LevelTables, cols: int) -> int:
    """Return the bits of the signed sum of ``cols`` products."""
    return (cols * int(levels.weight_levels.max()) * int(levels.act_levels.max())).bit_length() + 1


def rows_of_block(levels: LevelTables, rows: int, cols: int) -> int:
    """Return how many rows share a block: 2 where it has room for the weights of both."""
    widest = int(levels.weight_levels.max()) << sum_bits(levels, cols)
    return 2 if rows > 1 and widest.bit_length() < _WEIGHT_BITS else 1
