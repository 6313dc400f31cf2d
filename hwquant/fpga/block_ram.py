"""What a memory is made of: block RAMs, SPRAMs, LUTs used as memory, or logic.

The costs are those of yosys 0.70 (``share/*/brams*.txt``, ``lutrams*.txt`` and the options of
``memory_libmap`` in its ``synth_*`` commands): it takes the cheapest, whatever the device has more
of. A ROM that would become logic, though block RAMs are the smaller share of the device, has a
``ram_style`` that says so.
"""

from dataclasses import dataclass

from hwquant.fpga.devices import (
    DEFAULT_DEVICE,
    SPRAM_BITS,
    SPRAM_WORDS,
    Device,
    Family,
    find_device,
)


@dataclass(frozen=True)
class Memory:
    """``words`` words of ``bits`` bits; a ``rom`` is never written.

    One ``in_spram`` or ``in_blocks`` is made of SPRAMs or block RAMs whatever it costs.
    """

    bits: int
    words: int
    rom: bool
    in_spram: bool = False
    in_blocks: bool = False


@dataclass(frozen=True)
class MemoryCells:
    """What a memory takes: in halves, as an xc7 block RAM divides, and LUTs used as memory.

    ``mux_bits`` choose among blocks that share an output; ``rom_bits`` are left to logic.
    """

    half_brams: int
    luts: int
    mux_bits: int
    rom_bits: int
    sprams: int = 0


@dataclass(frozen=True)
class _Shape:
    """One way to use one cell: ``bits`` x ``words``, at yosys' cost."""

    bits: int
    words: int
    cost: int
    half_brams: int = 0
    luts: int = 0

    def cells(self, memory: Memory) -> int:
        return -(-memory.bits // self.bits) * -(-memory.words // self.words)

    def mux_bits(self, memory: Memory) -> int:
        return memory.bits * (-(-memory.words // self.words) - 1)

    def total(self, memory: Memory) -> int:
        return self.cost * self.cells(memory) + self.mux_bits(memory)


def _blocks(kbit: int, widths: tuple[int, ...], cost: int, half_brams: int) -> list[_Shape]:
    """Return the shapes of a block RAM; the parity bits count where 9 divides the width."""
    return [
        _Shape(width, kbit * 1024 // (width if width % 9 else width // 9 * 8), cost, half_brams)
        for width in widths
    ]


_BLOCKS_OF_16_KBIT = [*_blocks(16, (1, 2, 4, 9, 18, 36), 128, 2), _Shape(4, 16, 4, luts=6)]
_SHAPES: dict[Family, list[_Shape]] = {
    "xc7": [
        *_blocks(16, (1, 2, 4, 9, 18, 36), 129, 1),
        *_blocks(32, (1, 2, 4, 9, 18, 36, 72), 257, 2),
        _Shape(6, 32, 8, luts=4),
        _Shape(3, 64, 8, luts=4),
    ],
    "ecp5": _BLOCKS_OF_16_KBIT,
    "ice40": _blocks(4, (2, 4, 8, 16), 64, 2),
    "gowin": _BLOCKS_OF_16_KBIT,
}
_ROM_BITS_PER_COST: dict[Family, int] = {"xc7": 64, "ecp5": 16, "ice40": 16, "gowin": 16}

LUTS_OF_1000_ROM_BITS: dict[Family, int] = {"xc7": 38, "ecp5": 30, "ice40": 30, "gowin": 30}
"""LUTs of a ROM that is left to logic, fitted as the other costs of ``estimate``."""


_LEAST_WORDS, _MOST_WORDS = 1 << 9, 1 << 14  # of an ECP5 block RAM, at its widest, its narrowest


def parts_of(words: int) -> list[tuple[int, int]]:
    """Cut a memory into parts, ``(start, words)``, that need no choice among block RAMs.

    A part is a power of two of words, the last may be less, and starts at a multiple of its size.
    Of words of 12 to 64 bits yosys lays the block RAMs side by side, and the parts take no more of
    an ECP5's than the whole; narrower words may take one more, wider ones a choice in a part.
    """
    parts: list[tuple[int, int]] = []
    start = 0
    while start < words:
        blocks = -(-(words - start) // _LEAST_WORDS)
        size = min(_MOST_WORDS, _LEAST_WORDS << (blocks.bit_length() - 1))
        parts.append((start, min(size, words - start)))
        start += size
    return parts


def ram_style(device: str | None, bits: int, words: int) -> dict[str, str]:
    """Return the attribute of a ROM in a design for ``device``: none if it becomes logic.

    Every ``synth_*`` command of yosys follows it; ``None`` is the device of estimates.
    """
    target = find_device(device or DEFAULT_DEVICE)
    in_blocks = place_memory(target, Memory(bits, words, rom=True)).half_brams > 0
    return {"ram_style": "block"} if in_blocks else {}


def place_memory(target: Device, memory: Memory) -> MemoryCells:
    """Return what becomes of a memory with one read port and, unless a ROM, one write port.

    What is written is laid out at yosys' least cost. A ROM becomes logic where that is cheaper for
    yosys, and no larger a share of the device's LUTs than it would take of the block RAMs.

    An upper bound: block RAMs whose bits are all zero or all the same are removed later on. The
    LUTs of an SPRAM choose its address.
    """
    if memory.in_spram:
        deep = -(-memory.words // SPRAM_WORDS)
        sprams = -(-memory.bits // SPRAM_BITS) * deep
        return MemoryCells(0, (SPRAM_WORDS - 1).bit_length() * deep, 0, 0, sprams)
    has_luts = not (memory.rom or memory.in_blocks)
    shapes = [shape for shape in _SHAPES[target.family] if has_luts or not shape.luts]
    best = min(shapes, key=lambda shape: shape.total(memory))
    if memory.rom and not memory.in_blocks and _is_logic(target, memory, best):
        return MemoryCells(0, 0, 0, memory.bits * memory.words)
    cells = best.cells(memory)
    return MemoryCells(best.half_brams * cells, best.luts * cells, best.mux_bits(memory), 0)


def _is_logic(target: Device, rom: Memory, blocks: _Shape) -> bool:
    bits, half_brams = rom.bits * rom.words, blocks.half_brams * blocks.cells(rom)
    luts = bits * LUTS_OF_1000_ROM_BITS[target.family] // 1000
    return (
        bits < blocks.total(rom) * _ROM_BITS_PER_COST[target.family]
        and 2 * luts * target.brams <= half_brams * target.luts
    )
