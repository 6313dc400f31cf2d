"""Numbers in more bits, or in less."""

from amaranth.hdl import Cat, Const, Value


def extended(value: Value, bits: int) -> Value:
    """Return the lowest ``bits`` bits of a number, signed or not."""
    sign = value[-1] if value.shape().signed else Const(0, 1)
    return Cat(value, sign.replicate(max(0, bits - len(value))))[:bits]
