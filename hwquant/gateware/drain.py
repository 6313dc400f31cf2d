"""The drain: accumulators leave the array, lane by lane, as codes or as the output's values."""

from collections.abc import Callable

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.deep_memory import READ_DELAY, add_memory
from hwquant.gateware.delay import delayed
from hwquant.gateware.fields import Fields, started
from hwquant.gateware.output_buffer import OutputBuffer
from hwquant.gateware.power_activation import activation_units, create
from hwquant.gateware.requantize import LaneParameters, Requantize
from hwquant.gateware.residual_reader import ResidualReader
from hwquant.gateware.shared import add_shared
from hwquant.gateware.tile_walk import TileWalk
from hwquant.gateware.word_gatherer import WordGatherer
from hwquant.ir import Activation, MacLayer, QuantGraph
from hwquant.scheduler.plan import (
    OPERAND_DELAY,
    WORD_DELAY,
    activation_delay,
    code_delay,
    lane_delay,
    log2_ceil,
    requantize_delay,
)
from hwquant.scheduler.program import LayerProgram, Schedule


class Drain(Component):
    """Walks the captured accumulators, ``lanes`` a turn, through requantization and activation.

    A turn takes one cycle, or two where both digits of a residual have to be read. The walk of a
    sum ends at its last row or at the pixel's last chunk of channels. With streamed weights a pixel
    ends with the chunks that a tile makes, and comes again with the next tile.

    Members
    -------
    i : stream of all rows' accumulators, always ready: the sequencer's pace leaves time to drain
    start : the next sum is the next layer's; the last one's has been drained
    word_start : the next word is that of the next layer, whose output is stored
    residual_valid, residual_bank, residual_address, residual_word : the residual operand's read
    full, high, low, two_digits : a word of codes for the activation memory, see ``DigitWriter``;
        with streamed weights ``tile_ends`` as well
    o : stream of ``lanes`` values of the last layer
    sum_started, credit : a sum of the last layer begins; there is room for another

    Timing
    ------
    From ``i.valid`` to the values: one cycle a turn, then ``OPERAND_DELAY + requantize_delay``; to
    the codes ``plan.lane_delay`` more. ``start`` may come with the last turn of the layer before; a
    turn may begin two cycles later.
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule, parameters: list[int]) -> None:
        self._graph = graph
        self._schedule = schedule
        self._parameter_words = parameters
        self._layers = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
        self._output = OutputBuffer(graph, schedule)
        plan = schedule.plan
        accs = data.ArrayLayout(signed(max(la.acc_bits for la in self._layers)), plan.rows)
        address = range(max(2, *schedule.bank_words))
        word_bits = plan.cols * graph.act_bits
        ports = {
            "i": In(stream.Signature(accs, always_ready=True)),
            "start": In(1),
            "word_start": Out(1),
            "residual_valid": Out(1),
            "residual_bank": Out(1),
            "residual_address": Out(address),
            "residual_word": In(word_bits),
            "full": Out(1),
            "high": Out(word_bits),
            "low": Out(word_bits),
            "two_digits": In(1),
            "o": Out(stream.Signature(self._output.o.payload.shape())),
            "sum_started": In(1),
            "credit": Out(1),
        }
        if plan.is_streamed:
            ports["tile_ends"] = Out(1)
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        graph, plan = self._graph, self._schedule.plan
        layer = started(m, self.start, len(self._schedule.layers))
        fields = Fields(m, self._schedule.layers, layer, self.start)

        def of(name: str, value: Callable[[LayerProgram, MacLayer], int]) -> Signal:
            def of_mac(program: LayerProgram) -> int:
                layer = program.layer
                return value(program, layer) if isinstance(layer, MacLayer) else 0

            return fields.of(name, of_mac)

        # the walk
        last_chunk = of("last_chunk", lambda p, _: p.chunks - 1)
        two_cycles = of("two_cycles", lambda p, _: p.turn_cycles == 2)
        extra_turn = of("extra_turn", lambda p, _: p.extra_turn)
        chunk = Signal.like(last_chunk, name="chunk")
        walking, second_cycle, turn_ends = Signal(), Signal(), Signal()
        pixel_starts, pixel_ends = chunk == 0, chunk == last_chunk
        next_chunk = Mux(pixel_ends, 0, chunk + 1)
        tiles = TileWalk(self._schedule) if plan.is_streamed else None
        if tiles is not None:
            m.submodules["tile_walk"] = tiles
            m.d.comb += [
                tiles.layer.eq(layer),
                tiles.start.eq(self.start),
                tiles.chunk.eq(chunk),
                tiles.turn_ends.eq(turn_ends),
            ]
            pixel_starts, pixel_ends = tiles.pixel_starts, tiles.pixel_ends
            next_chunk = tiles.next_chunk
        rows_end = chunk[: log2_ceil(plan.chunks)] == plan.chunks - 1
        two = two_cycles | (extra_turn & pixel_ends)
        m.d.comb += turn_ends.eq(walking & (second_cycle | ~two))
        with m.If(walking):
            m.d.sync += second_cycle.eq(~second_cycle & two)
        with m.If(turn_ends):
            m.d.sync += chunk.eq(next_chunk)
            with m.If(rows_end | pixel_ends):
                m.d.sync += walking.eq(0)
        with m.If(self.i.valid):
            m.d.sync += walking.eq(1)
        with m.If(self.start):
            m.d.sync += [chunk.eq(0), second_cycle.eq(0)]

        # operands, OPERAND_DELAY cycles after the turn
        held = Signal(len(self.i.payload.as_value()))
        front = held[: len(held) // plan.chunks]
        with m.If(self.i.valid):
            m.d.sync += held.eq(self.i.payload)
        with m.Elif(turn_ends):
            m.d.sync += held.eq(held >> len(front))
        accs = Signal(data.ArrayLayout(self.i.payload.shape().elem_shape, plan.lanes))
        m.d.comb += accs.eq(delayed(m, front, OPERAND_DELAY, "front"))
        parameter_base = of("parameter_base", lambda p, _: p.param_base)
        restart = fields.loaded | (turn_ends & pixel_ends)
        parameters = self._parameters(m, parameter_base, chunk, turn_ends, restart)
        residual = self._residual(m, layer, walking, chunk, turn_ends, pixel_ends)
        if residual is not None and tiles is not None:
            m.d.comb += residual.tile_ends.eq(tiles.tile_ends)

        # lanes
        shifts = tuple(sorted({layer.shift for layer in self._layers}))
        units = activation_units(self._layers)
        to_value, to_code = OPERAND_DELAY + requantize_delay(graph), code_delay(graph)

        def later(cycles: int, name: str, value: Callable[[LayerProgram, MacLayer], int]) -> Value:
            """Return a field of the layer whose turn was so many cycles ago."""
            return delayed(m, of(name, value), cycles, f"{name}_of_turn")

        shift_select = later(OPERAND_DELAY, "shift_select", lambda _, la: shifts.index(la.shift))
        unit_select = later(to_code, "unit_select", lambda _, la: _places(units, la)[0])
        record_select: Value = Const(0)
        if any(len(records) > 1 for records in units):
            record_select = later(to_value, "record_select", lambda _, la: _places(units, la)[1])
        is_last = of("is_last", lambda p, _: p.output is None)
        stores = of("stores", lambda p, _: p.output is not None)
        has_gates = any(layer.gate for layer in self._layers)
        gated: Value = Const(0)
        if has_gates:
            gated = later(OPERAND_DELAY, "gated", lambda _, la: la.gate is not None)
        m.submodules["output"] = output = self._output
        writes_two = any(layer.output.parts == 2 for layer in self._layers[:-1])
        code_bits = graph.act_bits * (2 if writes_two else 1)
        m.submodules["gatherer"] = gatherer = WordGatherer(graph, self._schedule, code_bits)
        for lane in range(plan.lanes):
            requantize = Requantize(graph, shifts, in_blocks=plan.block != "SB_MAC16")
            add_shared(m, f"lane_{lane}", "requantize", requantize, platform)
            bits = slice(lane * graph.act_bits, (lane + 1) * graph.act_bits)
            code = self._activate(
                m, lane, requantize.value, units, (unit_select, record_select), code_bits, platform
            )
            m.d.comb += [
                requantize.acc.eq(accs[lane]),
                requantize.parameters.eq(parameters[lane]),
                requantize.shift_select.eq(shift_select),
                output.i.payload[lane].eq(requantize.value),
                gatherer.codes[lane].eq(code),
            ]
            if residual is not None:
                m.d.comb += [
                    requantize.skip_0.eq(residual.digits_0[bits]),
                    requantize.skip_1.eq(residual.digits_1[bits]),
                    requantize.form.eq(residual.form),
                ]
                if has_gates:
                    m.d.comb += requantize.gated.eq(gated)

        # results
        m.d.comb += [
            output.i.valid.eq(delayed(m, turn_ends & is_last, to_value, "has_value")),
            output.sum_started.eq(self.sum_started),
            self.credit.eq(output.credit),
            gatherer.valid.eq(delayed(m, turn_ends & stores, to_code, "has_code")),
            gatherer.pixel_starts.eq(delayed(m, pixel_starts, to_code, "pixel_starts")),
            gatherer.pixel_ends.eq(delayed(m, pixel_ends, to_code, "pixel_ends")),
            gatherer.two_digits.eq(self.two_digits),
            self.full.eq(gatherer.full),
            self.high.eq(gatherer.high),
            self.low.eq(gatherer.low),
            self.word_start.eq(delayed(m, fields.loaded & stores, to_code, "word_start")),
        ]
        if tiles is not None:
            to_word = to_code + WORD_DELAY
            m.d.comb += self.tile_ends.eq(delayed(m, tiles.tile_ends, to_word, "tile_ends"))
        wiring.connect(m, output.o, wiring.flipped(self.o))
        return m

    def _parameters(
        self, m: Module, base: Value, chunk: Signal, turn_ends: Value, restart: Value
    ) -> data.View:
        """Read the parameters of the turn's channels, in step with the lanes' other operands."""
        wait = OPERAND_DELAY - READ_DELAY
        base_before = delayed(m, base, wait - 1, "parameter_base_before")
        base = delayed(m, base_before, 1, "parameter_base_of_turn")
        layout = data.ArrayLayout(LaneParameters(self._graph), self._schedule.plan.lanes)
        words = self._parameter_words
        address = Signal(range(max(2, len(words))))
        if self._schedule.plan.is_streamed:
            m.d.sync += address.eq(base_before + delayed(m, chunk, wait - 1, "parameter_chunk"))
        else:
            turn_ends = delayed(m, turn_ends, wait, "parameter_turn")
            restart = delayed(m, restart, wait, "parameter_restart")
            with m.If(restart):
                m.d.sync += address.eq(base)
            with m.Elif(turn_ends):
                m.d.sync += address.eq(address + 1)
        parameters = Signal(layout)
        depth = max(2, len(words))
        device = self._schedule.plan.device
        word = add_memory(
            m, "parameter_memory", layout.size, depth, address, init=words, device=device
        )
        m.d.comb += parameters.eq(word)
        return parameters

    def _residual(
        self,
        m: Module,
        layer: Signal,
        walking: Signal,
        chunk: Signal,
        turn_ends: Value,
        pixel_ends: Value,
    ) -> ResidualReader | None:
        """Add the reader of residuals and gates if any layer has one."""
        if all(layer.operand is None for layer in self._layers):
            return None
        m.submodules["residual"] = reader = ResidualReader(self._graph, self._schedule, len(chunk))
        m.d.comb += [
            reader.layer.eq(layer),
            reader.start.eq(self.start),
            reader.walking.eq(walking),
            reader.chunk.eq(chunk),
            reader.turn_ends.eq(turn_ends),
            reader.pixel_ends.eq(pixel_ends),
            self.residual_valid.eq(reader.valid),
            self.residual_bank.eq(reader.bank),
            self.residual_address.eq(reader.address),
            reader.word.eq(self.residual_word),
        ]
        return reader

    def _activate(
        self,
        m: Module,
        lane: int,
        value: Value,
        units: list[list[Activation]],
        select: tuple[Value, Value],
        code_bits: int,
        platform: object,
    ) -> Value:
        """Run every activation unit of the network and pick this layer's."""
        slowest = lane_delay(self._graph)
        picked = Signal(code_bits, name=f"code_{lane}")
        unit_select, record_select = select
        with m.Switch(unit_select):
            for at, records in enumerate(units):
                unit = create(records, len(value), code_bits)
                module = f"power_activation_{at}"
                add_shared(m, f"activation_{at}_lane_{lane}", module, unit, platform)
                m.d.comb += unit.value.eq(value)
                if len(records) > 1:
                    m.d.comb += unit.select.eq(record_select)
                wait = slowest - activation_delay(records[0])
                code = delayed(m, unit.code, wait, f"code_{at}_{lane}")
                with m.Case(at):
                    m.d.comb += picked.eq(code)
        return picked


def _places(units: list[list[Activation]], layer: MacLayer) -> tuple[int, int]:
    """Return the unit of a layer's activation, and its place among the unit's records."""
    for at, records in enumerate(units):
        if layer.activation in records:
            return at, records.index(layer.activation)
    return 0, 0
