"""Exact staircases by binary search."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from hwquant.gateware.component import Component
from hwquant.gateware.lookup import lookup
from hwquant.gateware.unit_data import chosen, decode, late, unit_ports
from hwquant.ir import Thresholds
from hwquant.scheduler.plan import log2_ceil


class ThresholdSearch(Component):
    """Exact staircases by pipelined binary search, one comparison a stage.

    Members
    -------
    select : which of the staircases is this value's, if there are several

    Timing
    ------
    ``code`` follows ``value`` by ``plan.activation_delay`` cycles, the same for all of them.
    """

    def __init__(self, records: Sequence[Thresholds], value_bits: int, code_bits: int) -> None:
        self._records = records
        super().__init__(unit_ports(len(records), value_bits, code_bits))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        stages = log2_ceil(len(self._records[0].thresholds) + 1)
        select = self.select if len(self._records) > 1 else None
        # relative to the smallest threshold, only the range in which the answer changes matters
        lows = [record.thresholds[0] - 1 for record in self._records]
        highs = [record.thresholds[-1] for record in self._records]
        longest = max(high - low for low, high in zip(lows, highs, strict=True))
        span = range(longest + 1)
        low, high = chosen(lows, select), chosen(highs, select)
        value = Signal(span, name="value_0")
        with m.If(self.value <= low):
            m.d.sync += value.eq(0)
        with m.Elif(self.value >= high):
            m.d.sync += value.eq(high - low)
        with m.Else():
            m.d.sync += value.eq(self.value - low)
        never = longest + 1
        steps: list[list[int]] = []
        for record, least in zip(self._records, lows, strict=True):
            above = [t - least for t in record.thresholds]
            steps.append(above + [never] * ((1 << stages) - 1 - len(above)))
        width = never.bit_length()

        def thresholds(stage: int, bit: int) -> Value:
            """Look up a stage's thresholds where the comparison before it gave ``bit``."""
            half = 1 << (stages - 1 - stage)
            choices = [
                of_record[(k << (stages - stage)) + half - 1]
                for of_record in steps
                for k in range(bit, 1 << stage, 2)
            ]
            at = index if select is None else Cat(index, select)
            return lookup(choices, at, width) if len(at) else Const(choices[0], width)

        index: Value = Const(0, 0)
        select = late(m, select, 1, "select_0")
        threshold = thresholds(0, 0)
        for stage in range(stages):
            reached = Signal(name=f"reached_{stage}")
            m.d.comb += reached.eq(value >= threshold)
            next_index = Signal(stage + 1, name=f"index_{stage + 1}")
            next_value = Signal(span, name=f"value_{stage + 1}")
            m.d.sync += [next_index.eq(Cat(reached, index)), next_value.eq(value)]
            if stage + 1 < stages:  # looked up for both results, so that no look-up waits for one
                threshold = Signal(width, name=f"threshold_{stage + 1}")
                below, above = thresholds(stage + 1, 0), thresholds(stage + 1, 1)
                m.d.sync += threshold.eq(Mux(reached, above, below))
            index, value = next_index, next_value
            select = late(m, select, 1, f"select_{stage + 1}")
        m.d.comb += self.code.eq(decode(self._records, index, select, len(self.code)))
        return m
