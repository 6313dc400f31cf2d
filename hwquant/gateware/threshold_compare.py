"""Exact staircases of few steps, by a comparator a step."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from hwquant.gateware.component import Component
from hwquant.gateware.unit_data import chosen, decode, late, unit_ports
from hwquant.ir import Thresholds
from hwquant.scheduler.plan import PARALLEL_DELAY, log2_ceil


class ThresholdCompare(Component):
    """Exact staircases of few steps: the value is compared with all thresholds at once.

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
        select = self.select if len(self._records) > 1 else None
        most = max(len(record.thresholds) for record in self._records)
        never = 1 << len(self.value) - 1
        reached: list[Value] = []
        for at in range(most):
            steps = [(*record.thresholds, *[never] * most)[at] for record in self._records]
            bit = Signal(name=f"reached_{at}", reset_less=True)
            m.d.sync += bit.eq(self.value >= chosen(steps, select))
            reached.append(bit)
        index = Signal(log2_ceil(most + 1), reset_less=True)
        reached += [Const(0)] * ((1 << len(index)) - 1 - most)
        m.d.sync += index.eq(_count(reached))
        select = late(m, select, PARALLEL_DELAY, "select")
        m.d.comb += self.code.eq(decode(self._records, index, select, len(self.code)))
        return m


def _count(reached: Sequence[Value]) -> Value:
    """Return how many of ``2**n - 1`` bits are 1, all below the first that is 0."""
    half = len(reached) // 2
    middle = reached[half]
    if half == 0:
        return middle
    return Cat(Mux(middle, _count(reached[half + 1 :]), _count(reached[:half])), middle)
