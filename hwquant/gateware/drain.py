"""The drain: accumulators leave the array, lane by lane, as codes in memory or values in the output."""

from collections.abc import Callable

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from hwquant.gateware.power_activation import create, delayed
from hwquant.gateware.requantize import LaneParameters, Requantize, bias_with_half
from hwquant.gateware.sequencer import Field
from hwquant.ir import Activation, MacLayer, QuantGraph
from hwquant.plan import (
    OPERAND_DELAY,
    REQUANTIZE_DELAY,
    activation_delay,
    array_delay,
    lane_delay,
    log2_ceil,
)
from hwquant.schedule import LayerProgram, Schedule


def output_depth(graph: QuantGraph, schedule: Schedule) -> int:
    """Beats that the output buffer must hold so that it never stalls an unstalled array."""
    plan = schedule.plan
    last = schedule.layers[-1].pace
    flight = 8 + array_delay(plan.cols, graph) + OPERAND_DELAY + REQUANTIZE_DELAY + last
    return 1 << log2_ceil(flight + 2 * plan.chunks)


class Drain(wiring.Component):
    """Walks the captured accumulators, ``lanes`` a turn, through requantization and activation.

    Members
    -------
    i : stream of all rows' accumulators, always ready: the sequencer's pace leaves time to drain
    layer, start : as the sequencer says
    residual_valid, residual_bank, residual_address, residual_word : the residual operand's read
    write, bank, address, word : a word of codes for the activation memory
    o : stream of ``lanes`` values of the last layer
    sum_started, credit : a sum of the last layer begins; there is room for another
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule, params: list[int]) -> None:
        self._graph = graph
        self._schedule = schedule
        self._params = params
        plan = schedule.plan
        acc_bits = max(la.acc_bits for la in graph.layers if isinstance(la, MacLayer))
        self._value_bits = max(la.value_bits for la in graph.layers if isinstance(la, MacLayer))
        accs = data.ArrayLayout(signed(acc_bits), plan.rows)
        values = data.ArrayLayout(signed(graph.layers[-1].value_bits), plan.lanes)  # type: ignore[union-attr]
        address = range(max(2, *schedule.bank_words))
        word_bits = plan.cols * graph.act_bits
        super().__init__(
            {
                "i": In(stream.Signature(accs, always_ready=True)),
                "layer": In(range(max(2, len(schedule.layers)))),
                "start": In(1),
                "residual_valid": Out(1),
                "residual_bank": Out(1),
                "residual_address": Out(address),
                "residual_word": In(word_bits),
                "write": Out(1),
                "bank": Out(1),
                "address": Out(address),
                "word": Out(word_bits),
                "o": Out(stream.Signature(values)),
                "sum_started": In(1),
                "credit": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        graph, plan = self._graph, self._schedule.plan
        programs = self._schedule.layers
        shifts = tuple(sorted({la.shift for la in graph.layers if isinstance(la, MacLayer)}))
        units = distinct_activations(graph)

        def of(name: str, value: Callable[[LayerProgram, MacLayer], int]) -> Signal:
            values = [
                value(p, p.layer) if isinstance(p.layer, MacLayer) else 0 for p in programs
            ]
            return Field(m, name, values, self.layer, self.start).value

        chunks = of("chunks", lambda p, la: -(-la.output.channels // plan.lanes) - 1)
        is_last = of("is_last", lambda p, la: p.output is None)
        shift_select = of("shift_select", lambda p, la: shifts.index(la.shift))
        unit_select = of(
            "unit_select", lambda p, la: units.index(la.activation) if la.activation else 0
        )
        two_out = of("two_out", lambda p, la: la.activation is not None and la.output.parts == 2)

        # walk: one turn a cycle, or two cycles a turn to read both digits of a residual
        walking, turn_ends, chunk, first_of_pixel, last_of_pixel = self._walk(m, chunks, of)
        held = Signal(self.i.payload.shape())
        front = Cat(*(held[lane] for lane in range(plan.lanes)))
        with m.If(self.i.valid):
            m.d.sync += held.eq(self.i.payload)
        with m.Elif(turn_ends):
            m.d.sync += held.as_value().eq(held.as_value() >> len(front))

        parameters = self._parameters(m, walking, turn_ends, last_of_pixel, of)
        skip_0, skip_1, two_skip = self._residual(m, chunk, turn_ends, last_of_pixel, of)

        # lanes
        late = OPERAND_DELAY
        accs = delayed(m, front, late, "front")
        acc_bits = len(front) // plan.lanes
        values: list[Value] = []
        codes: list[Value] = []
        code_bits = 2 * graph.act_bits if self._two_digit_outputs() else graph.act_bits
        for lane in range(plan.lanes):
            requantize = Requantize(graph, shifts)
            m.submodules[f"lane_{lane}"] = requantize
            bits = graph.act_bits
            m.d.comb += [
                requantize.acc.eq(accs[lane * acc_bits : (lane + 1) * acc_bits]),
                requantize.parameters.eq(parameters[lane]),
                requantize.skip_0.eq(skip_0[lane * bits : (lane + 1) * bits]),
                requantize.skip_1.eq(skip_1[lane * bits : (lane + 1) * bits]),
                requantize.two_digits.eq(two_skip),
                requantize.shift_select.eq(shift_select),
            ]
            values.append(requantize.value)
            codes.append(self._activate(m, lane, requantize.value, units, unit_select, code_bits))

        to_value = late + REQUANTIZE_DELAY
        value_valid = delayed(m, turn_ends, to_value, "turn")
        code_valid = delayed(m, value_valid, lane_delay(graph), "value_valid")
        ends = delayed(m, last_of_pixel, to_value + lane_delay(graph), "pixel_end")
        starts = delayed(m, first_of_pixel, to_value + lane_delay(graph), "pixel_start")
        self._write(m, codes, code_valid & ~is_last, starts, ends, two_out, of)
        self._output(m, values, value_valid & is_last, is_last)
        return m

    def _two_digit_outputs(self) -> bool:
        return any(layer.output.parts == 2 for layer in self._graph.layers[:-1])

    def _walk(
        self, m: Module, chunks: Signal, of: Callable[..., Signal]
    ) -> tuple[Signal, Signal, Signal, Signal, Signal]:
        """Count the chunks of a pixel; a sum's walk ends at its last row or the pixel's last chunk."""
        plan = self._schedule.plan
        two_turns = of("two_turns", lambda p, la: p.turn_cycles == 2)
        extra_turn = of("extra_turn", lambda p, la: p.extra_turn)
        two_cycles = Signal()
        walking, phase, turn_ends = Signal(), Signal(), Signal()
        chunk = Signal.like(chunks)
        first_of_pixel, last_of_pixel = Signal(), Signal()
        m.d.comb += [
            two_cycles.eq(two_turns | (extra_turn & last_of_pixel)),
            turn_ends.eq(walking & (phase | ~two_cycles)),
            first_of_pixel.eq(chunk == 0),
            last_of_pixel.eq(chunk == chunks),
        ]
        rows_end = Signal()
        row_bits = log2_ceil(plan.chunks)
        m.d.comb += rows_end.eq(chunk[:row_bits].all() if row_bits else 1)
        with m.If(walking):
            m.d.sync += phase.eq(~phase & two_cycles)
        with m.If(turn_ends):
            m.d.sync += chunk.eq(Mux(last_of_pixel, 0, chunk + 1))
            with m.If(rows_end | last_of_pixel):
                m.d.sync += walking.eq(0)
        with m.If(self.i.valid):
            m.d.sync += walking.eq(1)
        with m.If(self.start):
            m.d.sync += [chunk.eq(0), phase.eq(0)]
        return walking, turn_ends, chunk, first_of_pixel, last_of_pixel

    def _parameters(
        self,
        m: Module,
        walking: Signal,
        turn_ends: Signal,
        last_of_pixel: Signal,
        of: Callable[..., Signal],
    ) -> Signal:
        """Read the parameters of the chunk's channels; they arrive with the lane's other operands."""
        layout = data.ArrayLayout(LaneParameters(self._graph), self._schedule.plan.lanes)
        store = memory.Memory(
            shape=unsigned(layout.size), depth=max(2, len(self._params)), init=self._params
        )
        m.submodules["parameters"] = store
        port = store.read_port(domain="sync")
        base = of("param_base", lambda p, la: p.param_base)
        address = Signal.like(port.addr)
        started = Signal()
        m.d.sync += started.eq(self.start)
        with m.If(started | (turn_ends & last_of_pixel)):
            m.d.sync += address.eq(base)
        with m.Elif(turn_ends):
            m.d.sync += address.eq(address + 1)
        parameters = Signal(layout)
        m.d.comb += [port.addr.eq(address), port.en.eq(1)]
        m.d.sync += parameters.eq(port.data)
        return parameters

    def _residual(
        self,
        m: Module,
        chunk: Signal,
        turn_ends: Signal,
        last_of_pixel: Signal,
        of: Callable[..., Signal],
    ) -> tuple[Value, Value, Value]:
        """Read the residual operand's digits for the chunk: (digit 0, digit 1, has two)."""
        plan, bits = self._schedule.plan, self._graph.act_bits
        walks = {p.name: p.residual for p in self._schedule.layers if p.residual is not None}
        lane_bits = plan.lanes * bits
        if not walks:
            zero = Signal(lane_bits)
            return zero, zero, Signal()
        field = {
            name: of(f"residual_{name}", lambda p, la, n=name: getattr(p.residual, n, 0))
            for name in ("bank", "base", "plane", "column_step", "row_step", "chunk_offset")
        }
        valid = of("residual_on", lambda p, la: p.residual is not None)
        two = of("residual_two", lambda p, la: p.residual is not None and p.residual.digits == 2)
        width = of("out_width", lambda p, la: la.output.width - 1)
        pixel, column = Signal.like(self.residual_address), Signal.like(width)
        started = Signal()
        m.d.sync += started.eq(self.start)
        with m.If(started):
            m.d.sync += [pixel.eq(field["base"]), column.eq(0)]
        with m.Elif(turn_ends & last_of_pixel):
            m.d.sync += [pixel.eq(pixel + field["column_step"]), column.eq(column + 1)]
            with m.If(column == width):
                m.d.sync += [pixel.eq(pixel + field["row_step"]), column.eq(0)]
        at = Signal(signed(len(chunk) + 2))
        word_chunks = log2_ceil(plan.cols // plan.lanes)
        second = turn_ends & two  # the second phase of a turn reads digit 1
        m.d.comb += [
            at.eq(chunk - field["chunk_offset"]),
            self.residual_valid.eq(valid),
            self.residual_bank.eq(field["bank"]),
            self.residual_address.eq(
                pixel + (at >> word_chunks) + Mux(second, field["plane"], 0)
            ),
        ]
        select = delayed(m, at[:word_chunks], 1, "residual_select")
        digits = Signal(lane_bits)
        m.d.sync += digits.eq(self.residual_word.word_select(select, lane_bits))
        earlier = delayed(m, digits, 1, "residual_digits")
        return Mux(two, earlier, digits), digits, two

    def _activate(
        self,
        m: Module,
        lane: int,
        value: Value,
        units: list[Activation],
        select: Signal,
        code_bits: int,
    ) -> Value:
        """Run every distinct activation of the network and pick this layer's."""
        slowest = lane_delay(self._graph)
        picked: Value = Signal(code_bits, name=f"code_{lane}")
        with m.Switch(select):
            for at, record in enumerate(units):
                unit = create(record, len(value), code_bits)
                m.submodules[f"activation_{at}_lane_{lane}"] = unit
                m.d.comb += unit.value.eq(value)  # type: ignore[attr-defined]
                code = delayed(
                    m,
                    unit.code,  # type: ignore[attr-defined]
                    slowest - activation_delay(record),
                    f"code_{at}_{lane}",
                )
                with m.Case(at):
                    m.d.comb += picked.eq(code)
        return picked

    def _write(
        self,
        m: Module,
        codes: list[Value],
        valid: Value,
        starts: Value,
        ends: Value,
        two: Signal,
        of: Callable[..., Signal],
    ) -> None:
        """Gather lanes into words, digit by digit, and write a word when it or the pixel is full."""
        plan, bits = self._schedule.plan, self._graph.act_bits
        base = of("out_base", lambda p, la: p.output.base if p.output else 0)
        plane = of("out_plane", lambda p, la: p.output.plane if p.output else 0)
        bank = of("out_bank", lambda p, la: p.output.bank if p.output else 0)
        slots = plan.cols // plan.lanes
        slot = Signal(range(slots))
        here = Mux(starts, 0, slot)
        high, low = Signal.like(self.word, name="high"), Signal.like(self.word, name="low")
        pending = Signal.like(self.word, name="pending")
        full, second = Signal(), Signal()
        address, second_address = Signal.like(self.address), Signal.like(self.address)
        second_bank = Signal()
        lane_bits = plan.lanes * bits
        with m.If(valid):
            m.d.sync += slot.eq(here + 1)
            one = Cat(*(code[:bits] for code in codes))
            upper = Cat(*(Mux(two, code[bits:], code[:bits]) for code in codes))
            m.d.sync += [
                high.word_select(here, lane_bits).eq(upper),
                low.word_select(here, lane_bits).eq(one),
            ]
        m.d.sync += [
            full.eq(valid & (ends | (here == slots - 1))),
            second.eq(full & two),
            pending.eq(low),
            second_address.eq(address + plane),  # the next layer's fields may be loaded by then
            second_bank.eq(bank),
        ]
        started = Signal()
        m.d.sync += started.eq(self.start)
        with m.If(started):
            m.d.sync += address.eq(base)
        with m.Elif(full):
            m.d.sync += address.eq(address + 1)
        m.d.comb += [
            self.write.eq(full | second),
            self.bank.eq(Mux(second, second_bank, bank)),
            self.address.eq(Mux(second, second_address, address)),
            self.word.eq(Mux(second, pending, high)),
        ]

    def _output(self, m: Module, values: list[Value], valid: Value, is_last: Signal) -> None:
        """Buffer the last layer's values; a sum may start while there is room for all its beats."""
        plan = self._schedule.plan
        depth = output_depth(self._graph, self._schedule)
        shape = self.o.payload.shape()
        m.submodules["output"] = fifo = SyncFIFOBuffered(width=len(self.o.payload.as_value()), depth=depth)
        payload = Signal(shape)
        m.d.comb += [
            *(payload[lane].eq(value) for lane, value in enumerate(values)),
            fifo.w_data.eq(payload),
            fifo.w_en.eq(valid),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
        ]
        # beats promised to sums that have started and are not out yet
        channels = self._graph.layers[-1].output.channels
        beats = [min(plan.rows, channels - start) for start in range(0, channels, plan.rows)]
        beats = [-(-rows // plan.lanes) for rows in beats]
        promised = Signal(range(depth + 1))
        group = Signal(range(max(2, len(beats))))
        more = Mux(group == len(beats) - 1, beats[-1], beats[0])
        popped = self.o.valid & self.o.ready
        with m.If(self.sum_started):
            m.d.sync += group.eq(Mux(group == len(beats) - 1, 0, group + 1))
        m.d.sync += promised.eq(promised + Mux(self.sum_started, more, 0) - popped)
        m.d.comb += self.credit.eq(promised <= depth - max(beats))


def distinct_activations(graph: QuantGraph) -> list[Activation]:
    """Return the activations of a network, each once, in order of first use."""
    units: list[Activation] = []
    for layer in graph.layers:
        if isinstance(layer, MacLayer) and layer.activation and layer.activation not in units:
            units.append(layer.activation)
    return units


def parameter_words(graph: QuantGraph, schedule: Schedule) -> list[int]:
    """Return the parameter memory: one word for ``lanes`` output channels."""
    lanes, layout = schedule.plan.lanes, LaneParameters(graph)
    words: list[int] = []
    for layer in graph.layers:
        if not isinstance(layer, MacLayer):
            continue
        biases = bias_with_half(layer)
        for start in range(0, layer.output.channels, lanes):
            word = 0
            for lane, m in enumerate(range(start, min(start + lanes, layer.output.channels))):
                fields = {"multiplier": int(layer.multiplier[m]), "bias": int(biases[m])}
                if layer.residual is not None:
                    fields["residual"] = _residual_factor(graph, layer, m)
                word |= layout.const(fields).as_bits() << (lane * layout.size)
            words.append(word)
    return words


def _residual_factor(graph: QuantGraph, layer: MacLayer, m: int) -> int:
    """Return the residual's multiplier, 0 where its channel does not exist."""
    residual = layer.residual
    assert residual is not None
    channel = m - residual.channel_offset
    exists = 0 <= channel < graph.tensor(residual.source).channels
    return int(residual.multiplier[m]) if exists else 0
