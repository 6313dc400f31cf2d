"""The accelerator: loader, memories, array, pool and drain around one sequencer."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwquant.fpga.devices import DEFAULT_DEVICE, find_device
from hwquant.gateware.activation_memory import ActivationMemory
from hwquant.gateware.block_array import BlockArray
from hwquant.gateware.block_array import weight_digits as block_digits
from hwquant.gateware.component import Component
from hwquant.gateware.deep_memory import READ_DELAY, add_memory
from hwquant.gateware.delay import delayed
from hwquant.gateware.digit_writer import DigitWriter
from hwquant.gateware.drain import Drain
from hwquant.gateware.fields import Fields
from hwquant.gateware.images import parameter_words, weight_words
from hwquant.gateware.loader import Loader
from hwquant.gateware.lookup import lookup
from hwquant.gateware.mac_array import MacArray, MacForm
from hwquant.gateware.max_pool import MaxPool
from hwquant.gateware.sequencer import Sequencer
from hwquant.gateware.tap_buffer import TapBuffer
from hwquant.gateware.weight_buffer import WeightBuffer
from hwquant.gateware.window_loader import WindowLoader
from hwquant.ir import MacLayer, QuantGraph
from hwquant.scheduler.plan import MEMORY_DELAY, WALK_DELAY, Plan, blocks_of, weight_word_bits
from hwquant.scheduler.program import Schedule


def create_mac_array(graph: QuantGraph, schedule: Schedule) -> MacArray | BlockArray:
    """Return the MAC array that ``graph`` needs on ``schedule``'s plan."""
    plan = schedule.plan
    acc_bits = max(layer.acc_bits for layer in graph.layers if isinstance(layer, MacLayer))
    blocks = blocks_of(plan, graph)
    if blocks is not None:
        return BlockArray(plan.rows, plan.cols, graph.act_bits, acc_bits, graph.part_shift, blocks)
    return MacArray(
        plan.rows,
        plan.cols,
        graph.weight_bits,
        graph.act_bits,
        acc_bits,
        graph.part_shift,
        graph.arithmetic,
        lut_inputs(plan),
        schedule.taps,
    )


def weight_digits(graph: QuantGraph, plan: Plan) -> tuple[int, ...]:
    """Return what stands for each weight code in the words that the array takes."""
    blocks = blocks_of(plan, graph)
    if blocks is not None:
        return block_digits(blocks)
    return MacForm(graph.arithmetic, lut_inputs(plan)).weight_digits


def lut_inputs(plan: Plan) -> int:
    """Return the inputs of the LUTs that products are cut for: 4 if no device is named."""
    return find_device(plan.device or DEFAULT_DEVICE).lut_inputs


class Accelerator(Component):
    """A whole network: frames of sensor integers in, values of the last layer out.

    Members
    -------
    i : stream of pixels, row by row; ``channels_per_beat`` integers a beat
    o : stream of values, pixel by pixel, ``lanes`` output channels a beat
    weights : stream of the bits of weight words, lowest first, those of a frame over and over; only
        where the plan has ``stream_bits``
    status.layer : 0 while a frame is loaded, then 1 + index of the layer that runs

    Timing
    ------
    ``schedule.cycles`` from the first input beat to the last output beat when no stream stalls, of
    the first frame after reset if weights are streamed. Reset may come at any time.
    """

    def __init__(self, graph: QuantGraph, schedule: Schedule) -> None:
        self._graph = graph
        self._schedule = schedule
        self._sequencer = Sequencer(graph, schedule)
        self._loader = (WindowLoader if schedule.input.ring else Loader)(graph, schedule)
        self._drain = Drain(graph, schedule, parameter_words(graph, schedule))
        status = wiring.Signature({"layer": Out(range(len(schedule.layers) + 1))})
        ports = {
            "i": In(stream.Signature(self._loader.i.payload.shape())),
            "o": Out(stream.Signature(self._drain.o.payload.shape())),
            "status": Out(status),
        }
        if schedule.plan.is_streamed:
            self._buffer = WeightBuffer(graph, schedule)
            ports["weights"] = In(stream.Signature(self._buffer.i.payload.shape()))
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        graph, schedule = self._graph, self._schedule
        plan = schedule.plan
        m.submodules["sequencer"] = sequencer = self._sequencer
        m.submodules["loader"] = loader = self._loader
        m.submodules["drain"] = drain = self._drain
        m.submodules["mac_array"] = array = create_mac_array(graph, schedule)
        word_bits = plan.cols * graph.act_bits
        m.submodules["activations"] = acts = ActivationMemory(word_bits, schedule.bank_words)

        wiring.connect(m, wiring.flipped(self.i), loader.i)
        wiring.connect(m, drain.o, wiring.flipped(self.o))
        m.d.comb += [
            self.status.layer.eq(sequencer.status),
            loader.loading.eq(sequencer.loading),
            sequencer.loaded.eq(loader.loaded),
            sequencer.credit.eq(drain.credit),
            drain.sum_started.eq(sequencer.sum_started),
            drain.start.eq(delayed(m, sequencer.start, schedule.drain_start, "drain_start")),
        ]

        if schedule.input.ring:
            m.d.comb += loader.row_ends.eq(sequencer.row_ends)

        # reads: activations and weights reach the array MEMORY_DELAY cycles after the walk asks
        walk = sequencer.walk
        weight_word = self._add_weights(m, array.weight_digits)
        m.d.comb += [
            acts.read_address.eq(walk.act_address),
            acts.read_bank.eq(walk.act_bank),
        ]
        pools = [program.kind == "maxpool" for program in schedule.layers]
        is_pool = lookup(pools, sequencer.layer, 1)
        of_pool = delayed(m, is_pool, WALK_DELAY, "of_pool")
        flags = Cat(walk.valid, walk.first, walk.shift, walk.last, walk.digit, of_pool)
        pad = delayed(m, walk.pad, READ_DELAY, "pad")
        pad_word = delayed(m, walk.pad_word, READ_DELAY, "pad_word")
        word = Signal(word_bits)
        m.d.sync += word.eq(Mux(pad, pad_word, acts.read_word))
        valid, first, shift, last, digit, to_pool = delayed(m, flags, MEMORY_DELAY, "flags")
        m.d.comb += [
            array.i.payload.x.as_value().eq(word),
            array.i.payload.w.as_value().eq(weight_word),
            array.i.payload.first.eq(first),
            array.i.payload.shift.eq(shift),
            array.i.payload.last.eq(last),
            array.i.valid.eq(valid & ~to_pool),
        ]
        wiring.connect(m, array.o, drain.i)
        if isinstance(array, MacArray) and schedule.taps > 1:
            turn = delayed(m, walk.turn, READ_DELAY, "turn")
            newest = Signal(word_bits)
            m.d.sync += newest.eq(Mux(pad | turn, pad_word, acts.read_word))
            self._add_taps(m, array, word, newest, delayed(m, pad_word, 1, "edge_word"))

        # the residual operand
        m.d.comb += [
            acts.residual_valid.eq(drain.residual_valid),
            acts.residual_bank.eq(drain.residual_bank),
            acts.residual_address.eq(drain.residual_address),
            drain.residual_word.eq(acts.residual_word),
        ]

        # writes: one unit at a time and bank
        m.submodules["writer"] = writer = DigitWriter(graph, schedule)
        m.d.comb += [
            # when a max pool starts, all words before have been written
            writer.start.eq(drain.word_start | (sequencer.start & is_pool)),
            writer.full.eq(drain.full),
            writer.high.eq(drain.high),
            writer.low.eq(drain.low),
            drain.two_digits.eq(writer.two_digits),
        ]
        if plan.is_streamed:
            m.d.comb += writer.tile_ends.eq(drain.tile_ends)
        if any(pools):
            m.submodules["max_pool"] = pool = MaxPool(graph, schedule)
            m.d.comb += [
                pool.valid.eq(valid & to_pool),
                pool.first.eq(first),
                pool.last.eq(last),
                pool.digit.eq(digit),
                pool.word.eq(word),
                pool.two_digits.eq(writer.two_digits),
            ]
            with m.If(pool.full):
                m.d.comb += [writer.full.eq(1), writer.high.eq(pool.high), writer.low.eq(pool.low)]
                if plan.is_streamed:
                    m.d.comb += writer.tile_ends.eq(0)
        with m.If(writer.write):
            self._write(m, acts, writer.bank, writer.address, writer.word)
        place = schedule.input
        with m.If(loader.write):
            if place.ring:
                write = (acts.write_0, acts.write_1)[place.bank]
                m.d.comb += [
                    write.enable.eq(1),
                    write.address.eq(loader.address),
                    write.word.eq(loader.word),
                ]
            elif place.split:
                for write, bank_word in (
                    (acts.write_0, loader.word_0),
                    (acts.write_1, loader.word_1),
                ):
                    m.d.comb += [
                        write.enable.eq(1),
                        write.address.eq(loader.address),
                        write.word.eq(bank_word),
                    ]
            else:
                self._write(m, acts, Const(place.bank, 1), loader.address, loader.word_0)
        return m

    def _add_weights(self, m: Module, weight_digits: Sequence[int]) -> Value:
        """Add the ROM, or the buffer behind the stream, and return the word that the walk wants."""
        schedule, sequencer = self._schedule, self._sequencer
        address = sequencer.walk.weight_address
        if not schedule.plan.is_streamed:
            return add_memory(
                m,
                "weights",
                weight_word_bits(schedule.plan, self._graph),
                max(2, schedule.weight_words),
                delayed(m, address, MEMORY_DELAY - READ_DELAY, "weight_address"),
                init=weight_words(self._graph, schedule, weight_digits),
                device=schedule.plan.device,
            )
        m.submodules["weight_buffer"] = buffer = self._buffer
        wiring.connect(m, wiring.flipped(self.weights), buffer.i)
        m.d.comb += [
            buffer.layer.eq(sequencer.layer),
            buffer.start.eq(sequencer.start),
            buffer.tile_ends.eq(sequencer.tile_ends),
            buffer.address.eq(address),
            sequencer.filled.eq(buffer.filled),
        ]
        return buffer.word

    def _add_taps(
        self, m: Module, array: MacArray, word: Value, newest: Value, edge_word: Value
    ) -> None:
        """Give the array the ``newest`` tap and those of the columns before; keep ``word``."""
        schedule, sequencer = self._schedule, self._sequencer
        walk = sequencer.walk
        m.submodules["taps"] = buffer = TapBuffer(len(word), schedule.taps, len(walk.tap_address))
        fields = Fields(m, schedule.layers, sequencer.layer, sequencer.start)
        own = fields.of("own", lambda program: program.row.taps > 1)
        wait = MEMORY_DELAY - READ_DELAY
        push, edge, fill = delayed(m, Cat(walk.push, walk.edge, walk.fill), MEMORY_DELAY, "column")
        m.d.comb += [
            buffer.address.eq(delayed(m, walk.tap_address, wait, "tap_address")),
            buffer.word.eq(word),
            buffer.push.eq(push),
            buffer.edge.eq(edge),
            buffer.pad_word.eq(edge_word),
            array.taps.as_value().eq(Cat(newest, buffer.words)),
            array.own.eq(delayed(m, own, WALK_DELAY + MEMORY_DELAY, "own_of_beat")),
        ]
        with m.If(fill):
            m.d.comb += array.i.valid.eq(0)

    @staticmethod
    def _write(m: Module, acts: ActivationMemory, bank: Value, address: Value, word: Value) -> None:
        for at, write in enumerate((acts.write_0, acts.write_1)):
            m.d.comb += [
                write.enable.eq(bank == at),
                write.address.eq(address),
                write.word.eq(word),
            ]
