"""The sequencer: walks the loops of one layer after another and issues a read a cycle."""

from itertools import product

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.fields import Fields
from hwquant.gateware.images import pad_words
from hwquant.gateware.walk import Walk
from hwquant.ir import QuantGraph
from hwquant.scheduler.program import (
    ACT_DIGIT,
    SUM_LEVELS,
    TAP_LEVELS,
    WEIGHT_DIGIT,
    LayerProgram,
    Schedule,
)


class Sequencer(Component):
    """Program counter and loop nest.

    Members
    -------
    walk : the reads, see ``Walk``
    layer : index of the layer that is walked; stable from ``start`` until its last step
    start : one cycle at the start of a layer, in which every unit loads its fields
    loading, loaded : the input is being loaded; its last word is in memory or, of windows, that of
        the first layer's next row
    row_ends : of windows: the first layer takes the last step of a row
    credit : the output buffer has room for another sum
    sum_started : a sum of the last layer begins in this cycle
    status : 0 while loading, then 1 + index of the layer
    filled, tile_ends : of streamed weights: the next tile is there; its last step is taken
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule) -> None:
        self._schedule = schedule
        self._graph = graph
        depth = max(schedule.bank_words)
        self._act_address_bits = max(1, (depth - 1).bit_length())
        self._weight_address_bits = max(1, (schedule.weight_depth - 1).bit_length())
        word_bits = schedule.plan.cols * graph.act_bits
        tap_bits = sum(schedule.tap_bits)
        count = len(schedule.layers)
        ports = {
            "walk": Out(
                Walk(self._act_address_bits, self._weight_address_bits, word_bits, tap_bits)
            ),
            "layer": Out(range(max(2, count))),
            "start": Out(1),
            "loading": Out(1),
            "loaded": In(1),
            "credit": In(1),
            "sum_started": Out(1),
            "status": Out(range(count + 1)),
        }
        if schedule.input.ring:
            ports |= {"row_ends": Out(1)}
        if schedule.plan.is_streamed:
            ports |= {"filled": In(1), "tile_ends": Out(1)}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        programs = self._schedule.layers
        fields = Fields(m, self._schedule.layers, self.layer, self.start)
        of = fields.of
        levels = range(len(programs[0].loops.counts))
        is_streamed = self._schedule.plan.is_streamed
        image = self._schedule.image_levels
        once = [of(f"once_{i}", lambda p, i=i: p.loops.counts[i] == 1) for i in levels]
        nearly = [of(f"nearly_{i}", lambda p, i=i: max(0, p.loops.counts[i] - 2)) for i in levels]
        act_deltas = [
            of(f"act_delta_{i}", lambda p, i=i: p.loops.deltas(p.loops.act_strides)[i])
            for i in levels
        ]
        weight_deltas = [
            of(f"weight_delta_{i}", lambda p, i=i: p.loops.deltas(p.loops.weight_strides)[i])
            for i in levels
        ]
        paces_once = of("paces_once", lambda p: p.pace == 1)
        nearly_paced = of("nearly_paced", lambda p: max(0, p.pace - 2))
        nearly_flushed = of("nearly_flushed", lambda p: max(0, p.flush - 1))
        overlaps = of("overlaps", lambda p: p.flush == 0)
        act_base = of("act_base", lambda p: p.act_base)
        act_bank = of("act_bank", lambda p: p.source.bank)
        split = of("split", lambda p: p.source.split)
        weight_base = of("weight_base", lambda p: p.weight_base)
        origin_y = of("origin_y", lambda p: p.origin[0])
        origin_x = of("origin_x", lambda p: p.origin[1])
        stride_y = of("stride_y", lambda p: p.stride[0])
        stride_x = of("stride_x", lambda p: p.stride[1])
        height = of("height", lambda p: p.source.height)
        width = of("width", lambda p: p.source.width)
        is_pool = of("is_pool", lambda p: p.kind == "maxpool")
        is_last = of("is_last", lambda p: p.output is None)

        counters = [
            Signal(range(max(2, *(p.loops.counts[i] for p in programs))), name=f"counter_{i}")
            for i in levels
        ]
        # registers beside the counters, so that no comparison stands before the next step
        at_end = [Signal(name=f"at_end_{i}") for i in levels]
        at_start = [Signal(name=f"at_start_{i}", init=1) for i in levels]
        group, act_digit = counters[0], counters[3]
        sum_ends = Signal()
        sum_starts = Signal()
        pass_starts = Signal()
        finished = Signal()
        step = Signal()
        running = Signal()
        paced = Signal(range(max(2, *(p.pace for p in programs))))
        is_paced = Signal()
        after_sum = after_pixel = [paced.eq(0), is_paced.eq(paces_once)]
        if has_short_tails := any(p.last_pace < p.pace for p in programs):
            after_pixel = [
                paced.eq(of("head_start", lambda p: p.pace - p.last_pace)),
                is_paced.eq(of("last_paces_once", lambda p: p.last_pace == 1)),
            ]
        walk = self.walk
        may_step = running & ~(sum_ends & ~is_paced) & ~(sum_starts & is_last & ~self.credit)
        if is_streamed:
            may_step &= ~(sum_starts & ~self.filled)
            m.d.comb += self.tile_ends.eq(step & Cat(at_end[i] for i in image).all())
        m.d.comb += [
            sum_ends.eq(Cat(at_end[:SUM_LEVELS]).all()),
            finished.eq(Cat(at_end).all()),
            pass_starts.eq(Cat(at_start[:3]).all()),
            sum_starts.eq(Cat(at_start[:SUM_LEVELS]).all()),
            step.eq(may_step),
            self.sum_started.eq(step & sum_starts & is_last),
        ]

        y, x = self._positions(
            m,
            fields.loaded,
            step,
            [at_end[i] for i in image],
            counters,
            origin_y,
            origin_x,
            stride_y,
            stride_x,
        )
        outside = (y < 0) | (y >= height) | (x < 0) | (x >= width)
        m.d.sync += [
            walk.valid.eq(step),
            walk.first.eq(Mux(is_pool, at_start[1] & at_start[2], sum_starts)),
            walk.shift.eq(pass_starts & (~at_start[3] | (once[3] & ~at_start[4]))),
            walk.last.eq(sum_ends),
            walk.digit.eq(Mux(is_pool, group[0], act_digit[0])),
            walk.act_bank.eq(act_bank ^ (split & act_digit[0])),
            walk.pad.eq(outside),
        ]
        self._pad_word(m, group, counters[image[-3] :], act_digit)

        delta_act, delta_weight = act_deltas[-1], weight_deltas[-1]
        for i in reversed(levels[:-1]):
            delta_act = Mux(at_end[i], delta_act, act_deltas[i])
            delta_weight = Mux(at_end[i], delta_weight, weight_deltas[i])
        # whether the first of a level, where it begins again, is its last
        only: list[Value] = [*once]
        if any(p.loops.is_truncated for p in programs):
            is_truncated = of("is_truncated", lambda p: p.loops.is_truncated)
            meets_last = counters[WEIGHT_DIGIT] == nearly[WEIGHT_DIGIT]
            only[ACT_DIGIT] = once[ACT_DIGIT] | (is_truncated & ~at_end[WEIGHT_DIGIT] & meets_last)
        with m.If(running & ~is_paced):
            m.d.sync += [paced.eq(paced + 1), is_paced.eq(paced == nearly_paced)]
        with m.If(step):
            inner = Const(1, 1)
            for i in levels:
                with m.If(inner):
                    m.d.sync += [
                        counters[i].eq(Mux(at_end[i], 0, counters[i] + 1)),
                        at_end[i].eq(Mux(at_end[i], only[i], counters[i] == nearly[i])),
                        at_start[i].eq(at_end[i]),
                    ]
                inner = inner & at_end[i]
            with m.If(sum_ends):
                m.d.sync += after_sum
                if has_short_tails:
                    with m.If(Cat(at_end[i] for i in image[SUM_LEVELS:-2]).all()):
                        m.d.sync += after_pixel
        # addresses stand a cycle behind the counters, as all of the walk does
        way_act, way_weight = Signal.like(walk.act_address), Signal.like(walk.weight_address)
        m.d.sync += [way_act.eq(delta_act), way_weight.eq(delta_weight)]
        next_act: Value = walk.act_address + way_act
        loads: Value = self.status == 0
        can_run: Value = Const(1, 1)
        if ring := self._schedule.input.ring:
            loads |= self.status == 1  # while the first layer runs
            in_ring = of("in_ring", lambda p: p.source.ring > 0)
            next_act = Mux(in_ring, next_act & (ring - 1), next_act)
            can_run = self.loaded | ~in_ring
            m.d.comb += self.row_ends.eq(in_ring & step & Cat(at_end[i] for i in image[:-1]).all())
        with m.If(walk.valid):
            m.d.sync += [
                walk.act_address.eq(next_act),
                walk.weight_address.eq(walk.weight_address + way_weight),
            ]

        wait = Signal.like(nearly_flushed)
        next_layer = [self.layer.eq(self.layer + 1), self.status.eq(self.status + 1)]
        m.d.comb += self.loading.eq(loads)
        with m.FSM(init="LOAD"):
            with m.State("LOAD"), m.If(self.loaded):
                m.d.sync += [self.layer.eq(0), self.status.eq(1)]
                m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += self.start.eq(1)
                m.next = "INIT"
            with m.State("INIT"):
                if not is_streamed:  # else the next tile follows the one before
                    m.d.sync += walk.weight_address.eq(weight_base)
                m.d.sync += [
                    walk.act_address.eq(act_base),
                    *after_pixel,
                    *(end.eq(one) for end, one in zip(at_end, once, strict=True)),
                ]
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += running.eq(can_run)
                with m.If(step & finished):
                    m.d.sync += wait.eq(nearly_flushed)
                    m.next = "FLUSH"
                    with m.If(overlaps):
                        m.d.sync += next_layer
                        m.next = "FETCH"
            with m.State("FLUSH"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    with m.If(is_last):
                        m.d.sync += self.status.eq(0)
                        m.next = "LOAD"
                    with m.Else():
                        m.d.sync += next_layer
                        m.next = "FETCH"
        if self._schedule.taps > 1:
            counts, starts, ends = (
                [flags[i] for i in image] for flags in (counters, at_start, at_end)
            )
            sum_flags = (sum_starts, sum_ends)
            self._skip_sums(m, fields, counts, starts, ends, step, sum_flags, way_weight)
        return m

    def _skip_sums(
        self,
        m: Module,
        fields: Fields,
        counters: list[Signal],
        at_start: list[Signal],
        at_end: list[Signal],
        step: Signal,
        sum_flags: tuple[Signal, Signal],
        way_weight: Signal,
    ) -> None:
        """Walk columns without a sum once, whatever the weights' digits, and wait for nothing.

        Of a walk that turns the last row has one column.
        """
        walk = self.walk
        lead, gap = fields.of("lead", lambda p: p.row.lead), fields.of("gap", lambda p: p.row.gap)
        turns = fields.of("turns", lambda p: p.row.turns)
        left = Signal(max(len(lead), len(gap)))  # columns of the row before its next with a sum
        left_then, fill, fill_then = Signal.like(left), Signal(), Signal()
        turn, turn_then = Signal(), Signal()
        moves = step & Cat(at_end[:-2]).all()
        m.d.comb += [
            left_then.eq(left),
            turn_then.eq(turn),
            fill_then.eq((left_then != 0) & ~turn_then),
        ]
        with m.If(fields.loaded):
            m.d.comb += [left_then.eq(lead), turn_then.eq(0)]
        with m.Elif(moves):
            next_left = Mux(left == 0, gap, left - 1)
            m.d.comb += [
                left_then.eq(Mux(at_end[-2], lead, next_left)),
                turn_then.eq(turns & at_end[-2] & ~at_end[-1]),
            ]
        with m.Elif(turn & at_end[-1]):
            m.d.sync += at_end[-2].eq(1)
        with m.If(fill):
            m.d.comb += [flag.eq(0) for flag in sum_flags]
            m.d.sync += way_weight.eq(0)
        with m.If(fill_then):
            m.d.sync += at_end[SUM_LEVELS - 1].eq(1)
        widths = self._schedule.tap_bits
        parts = (counters[at][:bits] for at, bits in zip(TAP_LEVELS, widths, strict=True))
        m.d.sync += [
            left.eq(left_then),
            fill.eq(fill_then),
            turn.eq(turn_then),
            walk.fill.eq(fill),
            walk.turn.eq(turn),
            walk.push.eq(step & at_end[SUM_LEVELS - 1]),
            walk.tap_address.eq(Cat(*parts)),
            walk.edge.eq(at_start[-2]),
        ]

    def _positions(
        self,
        m: Module,
        loaded: Value,
        step: Value,
        at_end: list[Signal],
        counters: list[Signal],
        origin_y: Signal,
        origin_x: Signal,
        stride_y: Signal,
        stride_x: Signal,
    ) -> tuple[Value, Value]:
        """Return the source row and column of this step; negative or too large where padded."""
        programs = self._schedule.layers
        reach = max(max(p.source.height, p.source.width) + max(p.kernel) for p in programs) * 2
        reach = max([reach, *(_last_window(p) for p in programs)])
        window_y, window_x = (
            Signal(signed(reach.bit_length() + 1)),
            Signal(signed(reach.bit_length() + 1)),
        )
        pixel_ends = Cat(at_end[:-2]).all()
        with m.If(loaded):
            m.d.sync += [window_y.eq(origin_y), window_x.eq(origin_x)]
        with m.Elif(step & pixel_ends):
            m.d.sync += window_x.eq(window_x + stride_x)
            with m.If(at_end[-2]):
                m.d.sync += [window_x.eq(origin_x), window_y.eq(window_y + stride_y)]
            if self._schedule.plan.is_streamed:
                with m.If(Cat(at_end[-2:]).all()):
                    m.d.sync += window_y.eq(origin_y)
        return window_y + counters[2], window_x + counters[1]

    def _pad_word(self, m: Module, group: Signal, outer: list[Signal], digit: Signal) -> None:
        """Drive ``walk.pad_word``: real zero's digits for this layer, digit and word of a pixel.

        ``outer`` counts row groups, output columns, output rows and, of streamed weights, tiles.
        """
        m.d.sync += self.walk.pad_word.eq(0)
        for at, program in enumerate(self._schedule.layers):
            if program.kind == "maxpool" or program.source.ring:  # windows have their padding
                continue
            words = pad_words(self._graph, self._schedule, program)
            distinct = {word for planes in words for word in planes}
            if distinct == {0}:
                continue
            with m.If(self.layer == at):
                if len(distinct) == 1:
                    m.d.sync += self.walk.pad_word.eq(distinct.pop())
                    continue
                walk, of_tile = program.walk, program.loops.counts[-len(outer)]
                moves = of_tile * program.tiles if walk.step else 1
                for digit_at, move, group_at in product(
                    range(len(words)), range(moves), range(walk.count)
                ):
                    at_word = walk.step * move + group_at
                    here = (digit == digit_at) & (group == group_at)
                    if walk.step:
                        here &= outer[0] == move % of_tile
                        if program.tiles > 1:
                            here &= outer[-1] == move // of_tile
                    if at_word < program.source.groups:
                        with m.If(here):
                            m.d.sync += self.walk.pad_word.eq(words[digit_at][at_word])


def _last_window(program: LayerProgram) -> int:
    """Return where the last window starts, or how far before the image the first does."""
    columns, rows = program.layer.output.width, program.layer.output.height
    ends = (rows - 1, columns - 1), program.stride, program.origin
    return max(max(last * step + start, -start) for last, step, start in zip(*ends, strict=True))
