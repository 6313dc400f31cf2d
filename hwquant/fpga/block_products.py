"""Products in DSP blocks: the levels that a block multiplies, and its MACs a cycle.

A block adds its products to the sum of the block before. Where levels are small it multiplies those
of two rows at once. The block of a 7 series computes ``(d + a) * b``, weights times an activation:
one weight stands above the other, so far that a whole row's sum of the lower fits below. That of an
iCE40 UltraPlus has two multipliers of half the bits, with an adder each.
"""

from dataclasses import dataclass

import numpy as np

from hwquant.errors import UnsupportedModel
from hwquant.fpga.devices import Block
from hwquant.ir import Arithmetic, LevelTables, ProductTable

_LUT_INPUTS = 6
_LUT4_INPUTS = 4  # of an iCE40
_HALF_OPERAND, _HALF_SUM = 8, 16  # bits of the operands and of the sum of half an SB_MAC16


@dataclass(frozen=True)
class _Bits:
    """Bits of a block's operands and of its sum, all signed."""

    weight: int
    act: int
    sum: int


_BITS: dict[Block, _Bits] = {"DSP48E1": _Bits(25, 18, 48), "SB_MAC16": _Bits(16, 16, 32)}


@dataclass(frozen=True, eq=False)
class BlockForm:
    """How an array is made of blocks.

    ``rows`` of the array, 1 or 2, share a block. ``sum_bits`` are those of a row's signed sum.
    """

    block: Block
    levels: LevelTables
    rows: int
    sum_bits: int

    @property
    def decodes_weights(self) -> bool:
        """Whether weights come from memory as codes, and not as levels.

        An iCE40 has little block RAM, and a LUT before a register costs it no logic cell.
        """
        bits = weight_code_bits(self.levels)
        is_smaller = bits < weight_level_bits(self.levels)
        return self.block == "SB_MAC16" and is_smaller and bits <= _LUT4_INPUTS

    @property
    def weight_digit_bits(self) -> int:
        """Bits of a weight in memory."""
        bits_of = weight_code_bits if self.decodes_weights else weight_level_bits
        return bits_of(self.levels)


def block_form(arithmetic: Arithmetic, block: Block, rows: int, cols: int) -> BlockForm:
    """Return how blocks make ``rows`` x ``cols`` products of ``arithmetic``.

    Raises
    ------
    UnsupportedModel
        If products are not those of two levels, or levels or their sums are too wide for a block.
    """
    levels, most = block_levels(arithmetic), _BITS[block]
    bits = sum_bits(levels, cols)
    for name, found, permitted in (
        ("weight levels", weight_level_bits(levels), most.weight),
        ("activation levels", act_level_bits(levels) + 1, most.act),
        (f"sums of {cols} products", bits, most.sum),
    ):
        if found > permitted:
            raise UnsupportedModel(
                f"products=dsp: {name} of {found} bits with their sign; permitted 2..{permitted} "
                f"in {block}"
            )
    has_room = rows > 1 and _has_room_for_two(levels, block, bits)
    return BlockForm(block, levels, 2 if has_room else 1, bits)


def _has_room_for_two(levels: LevelTables, block: Block, bits: int) -> bool:
    """Whether a block holds the operands and the sums, of so many bits, of two rows."""
    match block:
        case "DSP48E1":
            return weight_level_bits(levels) + bits <= _BITS[block].weight
        case "SB_MAC16":
            operand_bits = max(weight_level_bits(levels), act_level_bits(levels) + 1)
            return operand_bits <= _HALF_OPERAND and bits <= _HALF_SUM


def block_levels(arithmetic: Arithmetic) -> LevelTables:
    """Return the levels whose products are those of ``arithmetic``, exactly.

    Activations have no common divisor, so that their levels are as small as can be.

    Raises
    ------
    UnsupportedModel
        If products are not those of two levels.
    """
    match arithmetic:
        case LevelTables():
            return arithmetic
        case ProductTable(products):
            largest = products[-1]
            acts = largest // max(1, int(np.gcd.reduce(largest)))
            weights = products[:, -1] // max(1, int(acts[-1]))
            if (weights[:, np.newaxis] * acts != products).any():
                raise UnsupportedModel(
                    "products=dsp: the table of products is not made of two levels; needs whole "
                    "levels, uniform codes or --accumulate levels"
                )
            return LevelTables(weights, acts)


def weight_code_bits(levels: LevelTables) -> int:
    """Return the bits of a weight's code with its sign."""
    return (len(levels.weight_levels) - 1).bit_length() + 1


def weight_level_bits(levels: LevelTables) -> int:
    """Return the bits of a weight's level with its sign."""
    return int(levels.weight_levels.max()).bit_length() + 1


def act_level_bits(levels: LevelTables) -> int:
    """Return the bits of an activation's level, which has no sign."""
    return int(levels.act_levels.max()).bit_length()


def is_decoded_in_memory(levels: LevelTables) -> bool:
    """Whether activations are decoded in block RAM and not in LUTs."""
    return len(levels.act_levels) > 1 << _LUT_INPUTS


def sum_bits(levels: LevelTables, cols: int) -> int:
    """Return the bits of the signed sum of ``cols`` products."""
    return (cols * int(levels.weight_levels.max()) * int(levels.act_levels.max())).bit_length() + 1
