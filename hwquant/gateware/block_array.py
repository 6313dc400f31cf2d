"""The MAC array in DSP blocks: a chain of blocks a row, or for two rows at once."""

from collections.abc import Sequence
from typing import assert_never

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream
from amaranth.lib.wiring import In, Out

from hwquant.fpga.block_products import (
    BlockForm,
    act_level_bits,
    is_decoded_in_memory,
    weight_level_bits,
)
from hwquant.gateware import dsp48, mac16
from hwquant.gateware.component import Component
from hwquant.gateware.delay import delayed
from hwquant.gateware.extend import extended
from hwquant.gateware.lookup import lookup
from hwquant.gateware.mac_array import add_computed, array_beat, kept
from hwquant.gateware.shared import add_shared
from hwquant.ir import LevelTables
from hwquant.scheduler.plan import BLOCK_STEP, RECODE_DELAY, block_stages, log2_ceil


def weight_digits(form: BlockForm) -> tuple[int, ...]:
    """Return what the weight memory holds for each code, negative ones at the end."""
    if form.decodes_weights:
        return _digits(range(len(form.levels.weight_levels)), form.weight_digit_bits)
    return level_digits(form.levels)


def level_digits(levels: LevelTables) -> tuple[int, ...]:
    """Return the level of each weight code, negative ones at the end."""
    return _digits(levels.weight_levels.tolist(), weight_level_bits(levels))


def _digits(magnitudes: Sequence[int], bits: int) -> tuple[int, ...]:
    mask = (1 << bits) - 1
    return (*magnitudes, *(-magnitude & mask for magnitude in reversed(magnitudes[1:])))


class BlockRows(Component):
    """The rows, one or two, of a chain of DSP blocks: ``cols`` products each, an accumulator each.

    A block adds its products to those of the block before, so it takes its digits
    ``BLOCK_STEP`` cycles later.

    Members
    -------
    x : levels of activations, that of each column ``BLOCK_STEP`` cycles after the one before
    w : levels of weights, all in time
    first, shift, valid : belong to the accumulators' own cycle
    accs : an accumulator a row

    Timing
    ------
    ``accs`` include the beat at ``x``, ``w`` after ``block_stages(form, cols) + 1`` cycles.
    """

    def __init__(self, cols: int, acc_bits: int, part_shift: int, form: BlockForm) -> None:
        self._form = form
        self._part_shift = part_shift
        acts = unsigned(act_level_bits(form.levels))
        weights = data.ArrayLayout(signed(weight_level_bits(form.levels)), cols)
        super().__init__(
            {
                "x": In(data.ArrayLayout(acts, cols)),
                "w": In(data.ArrayLayout(weights, form.rows)),
                "first": In(1),
                "shift": In(1),
                "valid": In(1),
                "accs": Out(data.ArrayLayout(signed(acc_bits), form.rows)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step = BLOCK_STEP[self._form.block]
        weights = [
            [
                delayed(m, Value.cast(row[col]), col * step, f"w_{at}_{col}").as_signed()
                for at, row in enumerate(self.w)
            ]
            for col in range(len(self.x))
        ]
        x, sum_bits = list(self.x), self._form.sum_bits
        match self._form.block:
            case "DSP48E1":
                sums = dsp48.add_chain(m, x, weights, sum_bits)
                pairs = zip(self.accs, sums, strict=True)
                totals = [self._added(acc, sum_, carry) for acc, (sum_, carry) in pairs]
            case "SB_MAC16":
                pairs = zip(self.accs, mac16.add_chain(m, x, weights, sum_bits), strict=True)
                totals = [self._chosen(acc, sum_) for acc, sum_ in pairs]
            case _:
                assert_never(self._form.block)
        for acc, total in zip(self.accs, totals, strict=True):
            with m.If(self.valid):
                m.d.sync += acc.eq(total)
        return m

    def _added(self, acc: Value, sum_: Value, carry: Value) -> Value:
        """Return what follows ``acc``, for LUTs of 6 inputs: one a bit has the choices too."""
        base = kept(acc, self.first, self.shift, self._part_shift)
        return add_computed(extended(sum_, len(acc)), base, carry, len(acc))

    def _chosen(self, acc: Value, sum_: Value) -> Value:
        """Return the same for LUTs of 4 inputs: that of an adder's bit has room for one choice."""
        base = Mux(self.shift, acc << self._part_shift, acc)[: len(acc)]
        return Mux(self.first, extended(sum_, len(acc)), extended(sum_, len(acc)) + base)


class LevelDecoder(Component):
    """Levels of the activation digits of two columns, a cycle later.

    Codes of more bits than a LUT6 has inputs are decoded in a block RAM, which has two ports on the
    7 series, or in one a column.
    """

    def __init__(self, levels: LevelTables) -> None:
        self._levels = [int(level) for level in levels.act_levels]
        self._in_memory = is_decoded_in_memory(levels)
        self._bits = bits = act_level_bits(levels)
        codes = unsigned(log2_ceil(len(self._levels)))
        super().__init__(
            {
                "codes": In(data.ArrayLayout(codes, 2)),
                "levels": Out(data.ArrayLayout(unsigned(bits), 2)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if not self._in_memory:
            for code, level in zip(self.codes, self.levels, strict=True):
                m.d.sync += level.eq(lookup(self._levels, code, self._bits))
            return m
        m.submodules.table = table = memory.Memory(
            shape=unsigned(self._bits),
            depth=len(self._levels),
            init=self._levels,
            attrs={"rom_style": "block"},
        )
        for code, level in zip(self.codes, self.levels, strict=True):
            port = table.read_port(domain="sync")
            m.d.comb += [port.addr.eq(code), port.en.eq(1), level.eq(port.data)]
        return m


class BlockArray(Component):
    """``rows`` output channels times ``cols`` input channels a cycle, in DSP blocks.

    Activations are decoded once a column, weights not at all or each for itself.

    Members
    -------
    i : stream of ``array_beat``, always ready
    o : stream of ``rows`` accumulators, always ready; one beat for every ``last``

    Timing
    ------
    As that of ``MacArray``.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        act_bits: int,
        acc_bits: int,
        part_shift: int,
        form: BlockForm,
    ) -> None:
        self._shape = (rows, cols)
        self._acc_bits = acc_bits
        self._part_shift = part_shift
        self._form = form
        beat = array_beat(rows, cols, signed(form.weight_digit_bits), act_bits)
        accs = data.ArrayLayout(signed(acc_bits), rows)
        super().__init__(
            {
                "i": In(stream.Signature(beat, always_ready=True)),
                "o": Out(stream.Signature(accs, always_ready=True)),
            }
        )

    @property
    def weight_digits(self) -> tuple[int, ...]:
        """What the weight memory holds for each code; 0 for 0, negative ones at the end."""
        return weight_digits(self._form)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, cols = self._shape
        beat, levels = self.i.payload, self._form.levels
        step = BLOCK_STEP[self._form.block]
        x = Signal(data.ArrayLayout(unsigned(act_level_bits(levels)), cols))
        for pair in range(0, cols, 2):
            decoder = LevelDecoder(levels)
            add_shared(m, f"decoder_{pair}", "level_decoder", decoder, platform)
            for at, col in enumerate((pair, pair + 1)):
                m.d.comb += [
                    decoder.codes[at].eq(beat.x[col]),
                    x[col].eq(delayed(m, decoder.levels[at], col * step, f"x_{col}")),
                ]
        w = self._weight_levels(m)
        flags = Cat(beat.first, beat.shift, beat.last & self.i.valid, self.i.valid)
        delay = RECODE_DELAY + block_stages(self._form, cols)
        first, shift, last, valid = delayed(m, flags, delay, "flags")
        m.d.sync += self.o.valid.eq(last)
        together = self._form.rows
        word = len(w) // rows * together
        for at, row in enumerate(range(0, rows, together)):
            chain = BlockRows(cols, self._acc_bits, self._part_shift, self._form)
            add_shared(m, f"rows_{row}", "block_rows", chain, platform)
            m.d.comb += [
                chain.x.eq(x),
                Value.cast(chain.w).eq(w.word_select(at, word)),
                chain.first.eq(first),
                chain.shift.eq(shift),
                chain.valid.eq(valid),
                *(self.o.payload[row + n].eq(chain.accs[n]) for n in range(together)),
            ]
        return m

    def _weight_levels(self, m: Module) -> Value:
        """Return the levels of all weights, ``RECODE_DELAY`` cycles late."""
        form, digits = self._form, Value.cast(self.i.payload.w)
        if not form.decodes_weights:
            return delayed(m, digits, RECODE_DELAY, "w")
        table = dict(zip(weight_digits(form), level_digits(form.levels), strict=True))
        by_digit = [table.get(digit, 0) for digit in range(1 << form.weight_digit_bits)]
        bits = weight_level_bits(form.levels)
        levels = Signal(len(digits) // form.weight_digit_bits * bits, name="w_0")
        for at in range(len(levels) // bits):
            digit = digits.word_select(at, form.weight_digit_bits)
            m.d.sync += levels.word_select(at, bits).eq(lookup(by_digit, digit, bits))
        return levels
