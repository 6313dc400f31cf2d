"""Combinational look-up of a small constant table."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Mux, Value


def lookup(table: Sequence[int], index: Value, width: int) -> Value:
    """Return ``table[index]``, ``width`` bits, as one constant truth table per output bit.

    ``table`` is padded with zeros to ``2**len(index)`` entries. A truth table a bit, rather than a
    case statement, keeps both the elaboration of hundreds of tables and the Verilog short; the
    technology mapper minimizes either form alike.
    """
    size = 1 << len(index)
    if len(table) > size:
        raise ValueError(f"table of {len(table)} entries, index of {len(index)} bits")
    bits: list[Value] = []
    for bit in range(width):
        truth = sum(((int(entry) >> bit) & 1) << at for at, entry in enumerate(table))
        bits.append(_truth_table(truth, index))
    return Cat(*bits)


def _truth_table(truth: int, index: Value) -> Value:
    """Return bit ``index`` of ``truth`` as a multiplexer of 6-input tables, the size of a LUT."""
    if len(index) <= 6:
        return Const(truth, 1 << len(index)).bit_select(index, 1)
    half = 1 << (len(index) - 1)
    low = _truth_table(truth & ((1 << half) - 1), index[:-1])
    return Mux(index[-1], _truth_table(truth >> half, index[:-1]), low)
