"""A delay line."""

from amaranth.hdl import Module, Signal, Value


def delayed(m: Module, value: Value, cycles: int, name: str) -> Value:
    """Return ``value`` of ``cycles`` cycles ago."""
    for at in range(cycles):
        later = Signal.like(value, name=f"{name}_{at}")
        m.d.sync += later.eq(value)
        value = later
    return value
