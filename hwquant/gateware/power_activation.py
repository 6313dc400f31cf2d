"""Power-activation units: value in, code out, one a cycle."""

from typing import assert_never

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.lookup import lookup
from hwquant.ir import Activation, PowerTable, Thresholds
from hwquant.plan import log2_ceil


class ThresholdSearch(Component):
    """Exact staircase by pipelined binary search, one comparison a stage.

    Timing
    ------
    ``code`` follows ``value`` by ``plan.activation_delay`` cycles.
    """

    def __init__(self, record: Thresholds, value_bits: int, code_bits: int) -> None:
        self._record = record
        super().__init__({"value": In(signed(value_bits)), "code": Out(code_bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        thresholds, codes = self._record.thresholds, self._record.codes
        stages = log2_ceil(len(thresholds) + 1)
        low, high = thresholds[0] - 1, thresholds[-1]
        # relative to the smallest threshold, only the range in which the answer changes matters
        span = range(high - low + 1)
        value = Signal(span, name="value_0")
        with m.If(self.value <= low):
            m.d.sync += value.eq(0)
        with m.Elif(self.value >= high):
            m.d.sync += value.eq(high - low)
        with m.Else():
            m.d.sync += value.eq(self.value - low)
        never = high - low + 1
        steps = [t - low for t in thresholds] + [never] * ((1 << stages) - 1 - len(thresholds))
        index: Value = Const(0, 0)
        for stage in range(stages):
            half = 1 << (stages - 1 - stage)
            choices = [steps[(k << (stages - stage)) + half - 1] for k in range(1 << stage)]
            width = never.bit_length()
            threshold = lookup(choices, index, width) if stage else Const(choices[0], width)
            reached = Signal(name=f"reached_{stage}")
            m.d.comb += reached.eq(value >= threshold)
            next_index = Signal(stage + 1, name=f"index_{stage + 1}")
            next_value = Signal(span, name=f"value_{stage + 1}")
            m.d.sync += [next_index.eq(Cat(reached, index)), next_value.eq(value)]
            index, value = next_index, next_value
        if list(codes) == list(range(len(codes))):
            m.d.comb += self.code.eq(index)
        else:
            m.d.comb += self.code.eq(lookup(codes, index, len(self.code)))
        return m


class PowerTableLookup(Component):
    """Piecewise constant on leading one and mantissa.

    Timing
    ------
    ``code`` follows ``value`` by ``plan.activation_delay`` cycles: saturate, normalize, look up.
    """

    def __init__(self, record: PowerTable, value_bits: int, code_bits: int) -> None:
        self._record = record
        super().__init__({"value": In(signed(value_bits)), "code": Out(code_bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits, mantissa = self._record.value_bits, self._record.mantissa_bits
        value = Signal(bits)
        with m.If(self.value < 0):
            m.d.sync += value.eq(0)
        with m.Elif(self.value >= (1 << bits)):
            m.d.sync += value.eq((1 << bits) - 1)
        with m.Else():
            m.d.sync += value.eq(self.value)
        address = Signal(range(len(self._record.codes)))
        with m.If(value < (1 << (mantissa + 1))):
            m.d.sync += address.eq(value)
        for exponent in range(1, bits - mantissa):
            with m.If(value[exponent + mantissa :] == 1):
                m.d.sync += address.eq(
                    (exponent << mantissa) + value[exponent : exponent + mantissa + 1]
                )
        m.d.sync += self.code.eq(lookup(self._record.codes, address, len(self.code)))
        return m


def create(record: Activation, value_bits: int, code_bits: int) -> Component:
    """Return the unit that computes ``record``."""
    match record:
        case Thresholds():
            return ThresholdSearch(record, value_bits, code_bits)
        case PowerTable():
            return PowerTableLookup(record, value_bits, code_bits)
        case _:
            assert_never(record)
