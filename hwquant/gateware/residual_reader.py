"""The residual reader: fetches the second operand of a sum from the activation memory."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.delay import delayed
from hwquant.gateware.fields import Fields
from hwquant.gateware.operand import form_of, operand_forms
from hwquant.ir import MacLayer, QuantGraph
from hwquant.scheduler.plan import OPERAND_DELAY, log2_ceil
from hwquant.scheduler.program import LayerProgram, Schedule


class ResidualReader(Component):
    """Walks the residual operand in step with the drain, ``lanes`` channels a turn.

    A channel that does not exist reads as garbage; its multiplier in the parameters is 0.

    Members
    -------
    layer, start : as the drain says
    walking, chunk, turn_ends, pixel_ends : the drain's walk; a turn reads digit 1 in its last cycle
        and, if there are two digits, digit 0 in the cycle before
    tile_ends : of streamed weights: the turn ends the walk of the image with a tile
    valid, bank, address, word : the read; ``word`` follows two cycles after ``address``
    digits_0, digits_1 : the codes' digits, ``plan.OPERAND_DELAY`` cycles after the turn's end; a
        code of one digit is in ``digits_0``
    form : which of the network's forms the codes have (``operand_forms``)
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule, chunk_bits: int) -> None:
        self._graph, self._schedule = graph, schedule
        self._lane_bits = schedule.plan.lanes * graph.act_bits
        ports = {
            "layer": In(range(max(2, len(schedule.layers)))),
            "start": In(1),
            "walking": In(1),
            "chunk": In(chunk_bits),
            "turn_ends": In(1),
            "pixel_ends": In(1),
            "valid": Out(1),
            "bank": Out(1),
            "address": Out(range(max(2, *schedule.bank_words))),
            "word": In(schedule.plan.cols * graph.act_bits),
            "digits_0": Out(self._lane_bits),
            "digits_1": Out(self._lane_bits),
            "form": Out(range(max(2, len(operand_forms(graph))))),
        }
        if schedule.plan.is_streamed:
            ports["tile_ends"] = In(1)
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        plan = self._schedule.plan
        fields = Fields(m, self._schedule.layers, self.layer, self.start)

        def of(name: str) -> Signal:
            return fields.of(name, lambda program: getattr(program.residual, name, 0))

        bank, base, plane = of("bank"), of("base"), of("plane")
        column_step, row_step, chunk_offset = of("column_step"), of("row_step"), of("chunk_offset")
        exists = fields.of("exists", lambda program: program.residual is not None)
        last_column = fields.of("last_column", lambda program: program.layer.output.width - 1)
        two = fields.of("two_digits_field", _has_two_digits)
        form = fields.of("form_field", lambda program: _form(self._graph, program))

        pixel, column = Signal.like(self.address), Signal.like(last_column)
        with m.If(fields.loaded):
            m.d.sync += [pixel.eq(base), column.eq(0)]
        with m.Elif(self.turn_ends & self.pixel_ends):
            m.d.sync += [pixel.eq(pixel + column_step), column.eq(column + 1)]
            with m.If(column == last_column):
                m.d.sync += [pixel.eq(pixel + row_step), column.eq(0)]
            if plan.is_streamed:
                with m.If(self.tile_ends):
                    m.d.sync += pixel.eq(base)

        chunks_per_word = log2_ceil(plan.cols // plan.lanes)
        at = Signal(signed(len(self.chunk) + 2))
        m.d.comb += at.eq(self.chunk - chunk_offset)
        digit = Mux(self.turn_ends & two, plane, 0)
        m.d.sync += [
            self.valid.eq(self.walking & exists),
            self.bank.eq(bank),
            self.address.eq(pixel + (at >> chunks_per_word) + digit),
        ]
        select = delayed(m, at[:chunks_per_word], OPERAND_DELAY - 1, "select")
        digits, earlier = Signal(self._lane_bits), Signal(self._lane_bits)
        m.d.sync += [
            digits.eq(self.word.word_select(select, self._lane_bits)),
            earlier.eq(digits),
        ]
        m.d.comb += [
            self.digits_0.eq(Mux(delayed(m, two, OPERAND_DELAY, "two"), earlier, digits)),
            self.digits_1.eq(digits),
            self.form.eq(delayed(m, form, OPERAND_DELAY, "form_of_turn")),
        ]
        return m


def _form(graph: QuantGraph, program: LayerProgram) -> int:
    return form_of(graph, program.layer.operand) if isinstance(program.layer, MacLayer) else 0


def _has_two_digits(program: LayerProgram) -> bool:
    return program.residual is not None and program.residual.digits == 2
