"""Rows of products in the DSP blocks of the 7 series, ``DSP48E1``."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, Value

from hwquant.gateware.extend import extended

_REGISTERS = {
    # before the sum of d and a, behind it, behind the product and behind the sum of products
    **dict.fromkeys(("DREG", "AREG", "ACASCREG", "ADREG", "MREG", "PREG"), 1),
    **dict.fromkeys(("BREG", "BCASCREG"), 2),  # b waits for the sum of d and a
    # none where nothing changes
    **dict.fromkeys(("CREG", "ALUMODEREG", "CARRYINREG", "CARRYINSELREG"), 0),
    **dict.fromkeys(("INMODEREG", "OPMODEREG"), 0),
}
_ENABLED = ("CEA2", "CEAD", "CEB1", "CEB2", "CED", "CEM", "CEP")
_ZEROS = {
    **dict.fromkeys(("CEA1", "CEC", "CECTRL", "CEALUMODE", "CECARRYIN", "CEINMODE"), 1),
    **dict.fromkeys(("RSTA", "RSTB", "RSTC", "RSTD", "RSTM", "RSTP"), 1),
    **dict.fromkeys(("RSTALLCARRYIN", "RSTALUMODE", "RSTCTRL", "RSTINMODE"), 1),
    **dict.fromkeys(("CARRYIN", "CARRYCASCIN", "MULTSIGNIN"), 1),
    "CARRYINSEL": 3,
    "ALUMODE": 4,
    "BCIN": 18,
    "ACIN": 30,
    "C": 48,
}
_CONSTANT: dict[str, Any] = {
    **{f"p_{name}": value for name, value in _REGISTERS.items()},
    **{f"i_{name}": Const(1, 1) for name in _ENABLED},
    **{f"i_{name}": Const(0, bits) for name, bits in _ZEROS.items()},
    "p_USE_DPORT": "TRUE",
    "i_INMODE": Const(0b00100, 5),  # d + a
}
_PRODUCT, _AND_BEFORE = 0b000_01_01, 0b001_01_01  # OPMODE: (d + a) * b, alone or added


def add_chain(
    m: Module, x: Sequence[Value], w: Sequence[Sequence[Value]], sum_bits: int
) -> list[tuple[Value, Value]]:
    """Add a chain of blocks, one a column; return the sum of each row, and a carry to add to it.

    ``x`` are activations, ``w`` the weights of a column, of one row or two; each comes
    ``BLOCK_STEP`` cycles after that of the column before. The weight of the second row stands above
    that of the first by the ``sum_bits`` of a row's sum: so do the two sums, but for a borrow, one
    if the lower is negative.
    """
    before: Value = Const(0, 48)
    total = before
    for col, (act, (low, *high)) in enumerate(zip(x, w, strict=True)):
        total = Signal(48, name=f"sum_{col}")
        chain = Signal(48, name=f"chain_{col}")
        m.submodules[f"block_{col}"] = Instance(
            "DSP48E1",
            **_CONSTANT,
            i_CLK=ClockSignal(),
            i_A=extended(low, 30),
            i_B=extended(act, 18),
            i_D=extended(high[0] << sum_bits if high else Const(0, 1), 25),
            i_PCIN=before,
            i_OPMODE=Const(_AND_BEFORE if col else _PRODUCT, 7),
            o_P=total,
            o_PCOUT=chain,
        )
        before = chain
    sums = [total[row * sum_bits :][:sum_bits].as_signed() for row in range(len(w[0]))]
    borrows = [Const(0, 1), *(lower[-1] for lower in sums[:-1])]
    return list(zip(sums, borrows, strict=True))
