"""The output buffer: the last layer's values wait here for whoever takes them."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.ir import MacLayer, QuantGraph
from hwquant.scheduler.plan import output_depth
from hwquant.scheduler.program import Schedule


class OutputBuffer(Component):
    """A FIFO that is never written when full: sums of the last layer start only while it has room.

    Members
    -------
    i : stream of ``lanes`` values, always ready
    o : the same values, for as long as the other side stalls
    sum_started : a sum of the last layer begins in this cycle: its beats will come
    credit : there is room for all the beats of another sum

    Timing
    ------
    A value appears at ``o`` ``plan.FIFO_DELAY`` cycles after it was at ``i``. The depth is such
    that an output that never stalls never withholds credit.
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule) -> None:
        plan, last = schedule.plan, graph.layers[-1]
        assert isinstance(last, MacLayer)
        rows = range(0, last.output.channels, plan.rows)
        self._beats = [
            -(-min(plan.rows, last.output.channels - start) // plan.lanes) for start in rows
        ]
        self._depth = output_depth(plan, graph, schedule.layers[-1].pace)
        values = data.ArrayLayout(signed(last.value_bits), plan.lanes)
        super().__init__(
            {
                "i": In(stream.Signature(values, always_ready=True)),
                "o": Out(stream.Signature(values)),
                "sum_started": In(1),
                "credit": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = len(self.i.payload.as_value())
        m.submodules["fifo"] = fifo = SyncFIFOBuffered(width=width, depth=self._depth)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload),
            fifo.w_en.eq(self.i.valid),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
        ]
        promised = Signal(range(self._depth + 1))  # beats of started sums that are not out yet
        group = Signal(range(max(2, len(self._beats))))
        ends = group == len(self._beats) - 1
        with m.If(self.sum_started):
            m.d.sync += group.eq(Mux(ends, 0, group + 1))
        more = Mux(self.sum_started, Mux(ends, self._beats[-1], self._beats[0]), 0)
        m.d.sync += promised.eq(promised + more - (self.o.valid & self.o.ready))
        m.d.comb += self.credit.eq(promised <= self._depth - max(self._beats))
        return m
