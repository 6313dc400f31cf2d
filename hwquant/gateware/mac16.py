"""Rows of products in the DSP blocks of iCE40 UltraPlus, ``SB_MAC16``.

There is no wire from a block's sum to the next: it goes by way of ``C`` and ``D``, the other
operands of the block's adders. Modes are those that Lattice calls ``MAS_S_8X8_ALL_PIPELINE`` and
``MAS_S_16X16_ALL_PIPELINE``: all registers are used, and both operands are signed.
"""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, Value

from hwquant.gateware.extend import extended

_ON = (
    # registers: of operands, of products or their parts, of the sum of the parts
    *("A_REG", "B_REG", "C_REG", "D_REG", "TOP_8x8_MULT_REG", "BOT_8x8_MULT_REG"),
    *("PIPELINE_16x16_MULT_REG1", "PIPELINE_16x16_MULT_REG2"),
    *("A_SIGNED", "B_SIGNED"),
    # C and D are what a product is added to
    *("TOPADDSUB_UPPERINPUT", "BOTADDSUB_UPPERINPUT"),
)
_ZEROS = (
    *("AHOLD", "BHOLD", "CHOLD", "DHOLD", "IRSTTOP", "IRSTBOT", "ORSTTOP", "ORSTBOT"),
    *("OLOADTOP", "OLOADBOT", "ADDSUBTOP", "ADDSUBBOT", "OHOLDTOP", "OHOLDBOT"),
    *("CI", "ACCUMCI", "SIGNEXTIN"),
)
_OF_REGISTER, _OF_HALF, _OF_WHOLE, _BY_CARRY = 1, 1, 2, 2  # an output, products, a carry
_CONSTANT: dict[str, Any] = {
    **{f"p_{name}": Const(1, 1) for name in _ON},
    **{f"p_{half}OUTPUT_SELECT": Const(_OF_REGISTER, 2) for half in ("TOP", "BOT")},
    **{f"i_{name}": Const(0, 1) for name in _ZEROS},
    "p_BOTADDSUB_CARRYSELECT": Const(0, 2),
    "p_NEG_TRIGGER": Const(0, 1),
    "i_CE": Const(1, 1),
}


def add_chain(
    m: Module, x: Sequence[Value], w: Sequence[Sequence[Value]], sum_bits: int
) -> list[Value]:
    """Add a chain of blocks, one a column; return the sum of each row.

    ``x`` are activations, ``w`` the weights of a column, of one row or two; each comes
    ``BLOCK_STEP`` cycles after that of the column before. Of two rows the second takes the upper
    halves.
    """
    halves = len(w[0])
    source = _OF_HALF if halves == 2 else _OF_WHOLE
    mode: dict[str, Any] = {
        "p_MODE_8x8": Const(halves == 2, 1),
        "p_TOPADDSUB_LOWERINPUT": Const(source, 2),
        "p_BOTADDSUB_LOWERINPUT": Const(source, 2),
        "p_TOPADDSUB_CARRYSELECT": Const(0 if halves == 2 else _BY_CARRY, 2),
    }
    operand_bits, total = 16 // halves, Const(0, 32)
    for col, (act, weights) in enumerate(zip(x, w, strict=True)):
        before, total = total, Signal(32, name=f"sum_{col}")
        m.submodules[f"block_{col}"] = Instance(
            "SB_MAC16",
            **_CONSTANT,
            **mode,
            i_CLK=ClockSignal(),
            i_A=Cat(extended(weight, operand_bits) for weight in weights),
            i_B=extended(act, operand_bits).replicate(halves),
            i_C=before[16:],
            i_D=before[:16],
            o_O=total,
        )
    return [total.word_select(row, 32 // halves)[:sum_bits].as_signed() for row in range(halves)]
