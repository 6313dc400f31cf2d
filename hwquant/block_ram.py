"""How yosys lays a memory out in block RAMs, LUTs used as memory, or logic.

The costs are those of yosys 0.70 (``share/*/brams*.txt``, ``lutrams*.txt`` and the options of
``memory_libmap`` in its ``synth_*`` commands): it takes the cheapest.
"""

from dataclasses import dataclass

from hwquant.devices import Family


@dataclass(frozen=True)
class Memory:
    """``words`` words of ``bits`` bits; a ``rom`` is never written."""

    bits: int
    words: int
    rom: bool


@dataclass(frozen=True)
class MemoryCells:
    """What a memory takes; ``rom_bits`` are left to logic. Halves, as an xc7 block RAM divides."""

    half_brams: int
    luts: int
    rom_bits: int


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


def _blocks(kbit: int, widths: tuple[int, ...], cost: int, half_brams: int) -> list[_Shape]:
    """Return the shapes of a block RAM of ``kbit`` * 1024 bits; widths from 9 up use parity bits."""
    return [
        _Shape(width, kbit * 1024 // (width // 9 * 8 or width), cost, half_brams)
        for width in widths
    ]


_SHAPES: dict[Family, list[_Shape]] = {
    "xc7": [
        *_blocks(16, (1, 2, 4, 9, 18, 36), 129, 1),
        *_blocks(32, (1, 2, 4, 9, 18, 36, 72), 257, 2),
        _Shape(6, 32, 8, luts=4),
        _Shape(3, 64, 8, luts=4),
    ],
    "ecp5": [*_blocks(16, (1, 2, 4, 9, 18, 36), 128, 2), _Shape(4, 16, 4, luts=6)],
    "ice40": _blocks(4, (2, 4, 8, 16), 64, 2),
}
_ROM_BITS_PER_COST: dict[Family, int] = {"xc7": 64, "ecp5": 16, "ice40": 16}


def place_memory(family: Family, memory: Memory) -> MemoryCells:
    """Return what yosys makes of a memory with one read port and, unless a ROM, one write port.

    An upper bound: block RAMs whose bits are all zero or all the same are removed later on.
    """
    shapes = [shape for shape in _SHAPES[family] if not (memory.rom and shape.luts)]
    best = min(shapes, key=lambda shape: shape.cost * shape.cells(memory))
    bits = memory.bits * memory.words
    if memory.rom and bits < best.cost * best.cells(memory) * _ROM_BITS_PER_COST[family]:
        return MemoryCells(0, 0, bits)
    cells = best.cells(memory)
    return MemoryCells(best.half_brams * cells, best.luts * cells, 0)
