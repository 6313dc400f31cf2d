"""Pipelined division of integers."""

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed


def divide(m: Module, dividend: Value, divisor: Value, quotient_bits: int, name: str) -> Value:
    """Return ``dividend // divisor`` after ``quotient_bits`` cycles, a new one every cycle.

    Neither is negative, the divisor is not 0 and the quotient has ``quotient_bits`` bits.
    Non-restoring: a bit of the quotient is whether the remainder, from which the divisor has been
    subtracted or, if it was negative, to which it has been added, is not negative.
    """
    dividend = Cat(dividend, Const(0, max(0, quotient_bits - len(dividend))))
    remainder: Value = dividend[quotient_bits:]
    rest = dividend[:quotient_bits]
    negative: Value = Const(0, 1)
    quotient: Value | None = None
    for stage in range(quotient_bits):
        twice = Cat(rest[-1], remainder)
        following = Signal(signed(len(divisor) + 1), name=f"{name}_{stage}_rest", reset_less=True)
        # one adder: the divisor inverted and a carry into the lowest bit subtract
        subtracts = ~negative
        term = Cat(divisor, Const(0, 1)) ^ subtracts.replicate(len(divisor) + 1)
        m.d.sync += following.eq((Cat(subtracts, twice) + Cat(subtracts, term))[1:])
        if quotient is not None:
            quotient = Cat(~following[-1], _held(m, quotient, f"{name}_{stage}_bits"))
        else:
            quotient = ~following[-1]
        if stage < quotient_bits - 1:
            rest = _held(m, rest[:-1], f"{name}_{stage}_low")
            divisor = _held(m, divisor, f"{name}_{stage}_divisor")
        remainder, negative = following, following[-1]
    assert quotient is not None
    return quotient


def _held(m: Module, value: Value, name: str) -> Value:
    later = Signal(len(value), name=name, reset_less=True)
    m.d.sync += later.eq(value)
    return later
