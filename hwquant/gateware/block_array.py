"""The MAC array in DSP blocks: a chain of blocks a row, or for two rows at once."""

from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream
from amaranth.lib.wiring import In, Out

from hwquant.fpga.block_products import (
    act_level_bits,
    is_decoded_in_memory,
    rows_of_block,
    sum_bits,
    weight_level_bits,
)
from hwquant.gateware.component import Component
from hwquant.gateware.delay import delayed
from hwquant.gateware.lookup import lookup
from hwquant.gateware.mac_array import add_computed, array_beat, kept
from hwquant.gateware.shared import add_shared
from hwquant.ir import LevelTables
from hwquant.scheduler.plan import RECODE_DELAY, block_stages, log2_ceil

_REGISTERS = {
    # before the sum of d and a, behind it, behind the product and behind the sum of products
    **dict.fromkeys(("DREG", "AREG", "ACASCREG", "ADREG", "MREG", "PREG"), 1),
    **dict.fromkeys(("BREG", "BCASCREG"), 2),  # b waits for the sum of d and a
    # none where nothing changes
    **dict.fromkeys(("CREG", "ALUMODEREG", "CARRYINREG", "CARRYINSELREG"), 0),
    **dict.fromkeys(("INMODEREG", "OPMODEREG"), 0),
}
_ENABLED = ("CEA2", "CEAD", "CEB1", "CEB2", "CED", "CEM", "CEP")
_ZEROS = {
    **dict.fromkeys(("CEA1", "CEC", "CECTRL", "CEALUMODE", "CECARRYIN", "CEINMODE"), 1),
    **dict.fromkeys(("RSTA", "RSTB", "RSTC", "RSTD", "RSTM", "RSTP"), 1),
    **dict.fromkeys(("RSTALLCARRYIN", "RSTALUMODE", "RSTCTRL", "RSTINMODE"), 1),
    **dict.fromkeys(("CARRYIN", "CARRYCASCIN", "MULTSIGNIN"), 1),
    "CARRYINSEL": 3,
    "ALUMODE": 4,
    "BCIN": 18,
    "ACIN": 30,
    "C": 48,
}
_CONSTANT: dict[str, Any] = {
    **{f"p_{name}": value for name, value in _REGISTERS.items()},
    **{f"i_{name}": Const(1, 1) for name in _ENABLED},
    **{f"i_{name}": Const(0, bits) for name, bits in _ZEROS.items()},
    "p_USE_DPORT": "TRUE",
    "i_INMODE": Const(0b00100, 5),  # d + a
}
_PRODUCT, _AND_BEFORE = 0b000_01_01, 0b001_01_01  # OPMODE: (d + a) * b, alone or added


def level_digits(levels: LevelTables) -> tuple[int, ...]:
    """Return what the weight memory holds for each code: its level, negative ones at the end."""
    mask = (1 << weight_level_bits(levels)) - 1
    above = [int(level) for level in levels.weight_levels]
    return (*above, *(-level & mask for level in reversed(above[1:])))


class BlockRows(Component):
    """The rows, one or two, of a chain of DSP blocks: ``cols`` products each, an accumulator each.

    A block adds its products to those of the block before, so it takes its digits a cycle later.
    The weight of the second row stands above that of the first by ``place`` bits, the bits of a
    row's sum: so do the two sums, but for a borrow, one if the lower is negative.

    Members
    -------
    x : levels of activations, that of column c ``c`` cycles late
    w : levels of weights, all in time
    first, shift, valid : belong to the accumulators' own cycle
    accs : an accumulator a row

    Timing
    ------
    ``accs`` include the beat at ``x``, ``w`` after ``block_stages(cols) + 1`` cycles.
    """

    def __init__(
        self, rows: int, cols: int, acc_bits: int, part_shift: int, levels: LevelTables
    ) -> None:
        self._rows = rows
        self._cols = cols
        self._place = sum_bits(levels, cols)
        self._part_shift = part_shift
        acts = unsigned(act_level_bits(levels))
        weights = data.ArrayLayout(signed(weight_level_bits(levels)), cols)
        super().__init__(
            {
                "x": In(data.ArrayLayout(acts, cols)),
                "w": In(data.ArrayLayout(weights, rows)),
                "first": In(1),
                "shift": In(1),
                "valid": In(1),
                "accs": Out(data.ArrayLayout(signed(acc_bits), rows)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        before: Value = Const(0, 48)
        total = before
        for col in range(self._cols):
            low, *high = [
                delayed(m, Value.cast(self.w[row][col]), col, f"w_{row}_{col}").as_signed()
                for row in range(self._rows)
            ]
            total = Signal(48, name=f"sum_{col}")
            chain = Signal(48, name=f"chain_{col}")
            m.submodules[f"block_{col}"] = Instance(
                "DSP48E1",
                **_CONSTANT,
                i_CLK=ClockSignal(),
                i_A=_wide(low, 30),
                i_B=_wide(self.x[col], 18),
                i_D=_wide(high[0] << self._place if high else Const(0, 1), 25),
                i_PCIN=before,
                i_OPMODE=Const(_AND_BEFORE if col else _PRODUCT, 7),
                o_P=total,
                o_PCOUT=chain,
            )
            before = chain
        borrow: Value = Const(0, 1)
        for row, acc in enumerate(self.accs):
            sum_ = total[row * self._place :][: self._place].as_signed()
            base = kept(acc, self.first, self.shift, self._part_shift)
            with m.If(self.valid):
                m.d.sync += acc.eq(add_computed(_wide(sum_, len(acc)), base, borrow, len(acc)))
            borrow = sum_[-1]
        return m


def _wide(value: Value, bits: int) -> Value:
    """Return a number, signed or not, in ``bits`` bits."""
    sign = value[-1] if value.shape().signed else Const(0, 1)
    return Cat(value, sign.replicate(max(0, bits - len(value))))[:bits]


class LevelDecoder(Component):
    """Levels of the activation digits of two columns, a cycle later.

    Codes of more bits than a LUT has inputs are decoded in a block RAM, which has two ports.
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

    Weights are levels as they come from memory; activations are decoded once a column.

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
        levels: LevelTables,
    ) -> None:
        self._shape = (rows, cols)
        self._acc_bits = acc_bits
        self._part_shift = part_shift
        self._levels = levels
        beat = array_beat(rows, cols, signed(weight_level_bits(levels)), act_bits)
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
        return level_digits(self._levels)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, cols = self._shape
        beat = self.i.payload
        x = Signal(data.ArrayLayout(unsigned(act_level_bits(self._levels)), cols))
        for pair in range(0, cols, 2):
            decoder = LevelDecoder(self._levels)
            add_shared(m, f"decoder_{pair}", "level_decoder", decoder, platform)
            for at, col in enumerate((pair, pair + 1)):
                m.d.comb += [
                    decoder.codes[at].eq(beat.x[col]),
                    x[col].eq(delayed(m, decoder.levels[at], col, f"x_{col}")),
                ]
        w = delayed(m, Value.cast(beat.w), RECODE_DELAY, "w")
        flags = Cat(beat.first, beat.shift, beat.last & self.i.valid, self.i.valid)
        delay = RECODE_DELAY + block_stages(cols)
        first, shift, last, valid = delayed(m, flags, delay, "flags")
        m.d.sync += self.o.valid.eq(last)
        together = rows_of_block(self._levels, rows, cols)
        word = len(w) // rows * together
        for at, row in enumerate(range(0, rows, together)):
            chain = BlockRows(together, cols, self._acc_bits, self._part_shift, self._levels)
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
