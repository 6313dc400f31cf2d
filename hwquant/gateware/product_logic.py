"""Products of digits as small tables: what a MAC needs beside what its column shares.

An activation digit is broadcast to all rows of the array, so functions of it alone are computed
once a column, however many: the digit is *recoded*. A bit of a product is then a tree of tables of
bits of the weight and recoded bits. ``docs/mac.md`` has what was tried, and the cells that it took.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Literal

import numpy as np

from hwquant.gateware.masks import Mask, find_mask
from hwquant.ir import IntArray
from hwquant.scheduler.plan import log2_ceil

_SEARCHED = 8  # magnitudes, for which codes are searched: more would take minutes
_MANY_WIRES = 4  # beyond these a tree splits by the last bit of the weight only


@dataclass(frozen=True)
class WeightBit:
    """A bit of the magnitude, as the weight memory stores it."""

    bit: int


@dataclass(frozen=True)
class Recoded:
    """A function of the activation digit: 0 or 1 for each."""

    truth: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """``truth[i]``, where bit j of i is input j; without inputs a constant."""

    inputs: "tuple[WeightBit | Recoded | Table, ...]"
    truth: tuple[int, ...]


Source = WeightBit | Recoded | Table


@dataclass(frozen=True)
class ProductLogic:
    """The bits of a product's magnitude, the lowest first.

    ``code[d]`` is what the weight memory holds for the magnitude d; ``code[0]`` is 0.
    """

    code: tuple[int, ...]
    bits: tuple[Table, ...]

    @property
    def signals(self) -> tuple[Recoded, ...]:
        """All functions of the activation digit, in the order of their first use."""
        found = (s for bit in self.bits for s in _leaves(bit) if isinstance(s, Recoded))
        return tuple(dict.fromkeys(found))


def product_logic(products: IntArray, lut_inputs: int) -> ProductLogic:
    """Take a table of products apart, ``int[2**w, 2**x]``, for LUTs of 4 or 6 inputs.

    The last table of a bit leaves room for the sign and, of 6 inputs, for the other operand of the
    adder that it stands before. Exact for any table; products of 0 must be 0.

    Source
    ------
    Decomposition by column multiplicity (Ashenhurst 1957; Curtis 1962) and Shannon's expansion.
    """
    mapper = _Mapper(lut_inputs)
    identity = tuple(range(len(products)))
    is_searched = lut_inputs == 4 and len(products) <= _SEARCHED
    code = _short_code(mapper, products) if is_searched else identity
    pool = [_bit(np.arange(products.shape[1]), at) for at in range(log2_ceil(products.shape[1]))]
    bits = tuple(mapper.build(column, pool) for column in _columns(products, code))
    return ProductLogic(code, bits)


def private_logic(products: IntArray, lut_inputs: int) -> ProductLogic:
    """Do the same where no other product shares the recoded bits: with or without, as is smaller.

    The codes of magnitudes are those of ``product_logic``. At 8 x 16 LUTs of 6 inputs do without,
    those of 4 do not.
    """
    logic, mapper = product_logic(products, lut_inputs), _Mapper(lut_inputs)
    columns = _columns(products, logic.code)
    digit = log2_ceil(products.shape[1])
    wires = columns[0].ndim - 1 + digit
    flat = [column.reshape((2,) * wires + (1,)) for column in columns]
    recoded = [signal for signal in logic.signals if signal not in _digit_bits(digit)]
    if sum(map(mapper.luts, columns)) + len(recoded) <= sum(map(mapper.luts, flat)):
        return logic
    bits = (mapper.build(column, []) for column in flat)
    return ProductLogic(logic.code, tuple(_digit_apart(bit, wires - digit, digit) for bit in bits))


def _digit_bits(digit: int) -> list[Recoded]:
    return [Recoded(_bit(np.arange(1 << digit), at)) for at in range(digit)]


def _digit_apart(table: Table, wires: int, digit: int) -> Table:
    """Take the weight bits behind the first ``wires`` for the digit's own, the highest first."""
    inputs: list[Source] = []
    for source in table.inputs:
        match source:
            case Table():
                inputs.append(_digit_apart(source, wires, digit))
            case WeightBit(bit) if bit >= wires:
                inputs.append(_digit_bits(digit)[wires + digit - 1 - bit])
            case _:
                inputs.append(source)
    return Table(tuple(inputs), table.truth)


def last_inputs(lut_inputs: int) -> int:
    """Return the inputs of a bit's last table: a LUT takes the sign too, and one of 6 inputs more.

    That is the other operand of the adder, of whose carry chain the LUT is a part.
    """
    return 3 if lut_inputs == 4 else lut_inputs - 2


def _leaves(source: Source) -> Iterator[Source]:
    if isinstance(source, Table):
        for part in source.inputs:
            yield from _leaves(part)
    else:
        yield source


def _bit(numbers: IntArray, at: int) -> tuple[int, ...]:
    return tuple(int(bit) for bit in numbers >> at & 1)


def _columns(products: IntArray, code: Sequence[int]) -> list[IntArray]:
    """Each bit of a product, ``int[2, .., 2, 2**x]``: an axis a weight bit, the lowest first."""
    placed = np.zeros_like(products)
    placed[list(code)] = products
    wires = log2_ceil(len(products))
    axes = (*range(wires - 1, -1, -1), wires)
    bits = range(int(products.max()).bit_length())
    shape = (2,) * wires + (-1,)
    return [(placed >> bit & 1).reshape(shape).transpose(axes) for bit in bits]


def _short_code(mapper: "_Mapper", products: IntArray) -> tuple[int, ...]:
    """Exchange the codes of two magnitudes, or three, while that saves tables; that of 0 stays."""

    def cost(code: Sequence[int]) -> int:
        return sum(mapper.luts(bit) for bit in _columns(products, code))

    magnitudes = range(1, len(products))
    moves = [*combinations(magnitudes, 2), *permutations(magnitudes, 3)]
    best = list(range(len(products)))
    least, improved = cost(best), True
    while improved:
        improved = False
        for places in (move for move in moves if move[0] == min(move)):
            trial = best.copy()
            for at, source in zip(places, (*places[1:], places[0]), strict=True):
                trial[at] = best[source]
            if (luts := cost(trial)) < least:
                best, least, improved = trial, luts, True
    return tuple(best)


_Kind = Literal["signal", "leaf", "wrap", "split", "mask"]


class _Mapper:
    """Cuts one bit of a product, ``int[2, .., 2, 2**x]``, into tables."""

    def __init__(self, lut_inputs: int) -> None:
        self._inputs = lut_inputs
        self._top = last_inputs(lut_inputs)
        self._widest = 6  # inputs of LUTs that multiplexers beside them make one, at no cost
        self._known: dict[tuple[bytes, tuple[int, ...], int], tuple[int, _Kind, int]] = {}
        self._masks: dict[bytes, Mask | None] = {}

    def luts(self, bit: IntArray) -> int:
        """Tables of one bit, the sign's included."""
        return self._best(_needed(bit, range(bit.ndim - 1))[0], self._top)[0]

    def build(self, bit: IntArray, pool: list[tuple[int, ...]]) -> Table:
        """Return the tree of a bit; recoded bits are taken from ``pool`` or added to it."""
        tree = self._build(bit, range(bit.ndim - 1), self._top, pool)
        return tree if isinstance(tree, Table) else Table((tree,), (0, 1))

    def _best(self, bit: IntArray, room: int) -> tuple[int, _Kind, int]:
        """Return the tables, and how to cut: of the ways with the fewest tables the first."""
        key = (bit.tobytes(), bit.shape, room)
        if key not in self._known:
            self._known[key] = min(self._ways(bit, room), key=lambda way: way[0])
        return self._known[key]

    def _ways(self, bit: IntArray, room: int) -> Iterator[tuple[int, _Kind, int]]:
        wires = bit.ndim - 1
        codes = log2_ceil(len(set(_patterns(bit))))
        if wires == 0:
            yield 0, "signal", 0
            return
        if wires + codes <= max(room, self._widest if room == self._inputs else 0):
            yield 1 << max(0, wires + codes - self._inputs), "leaf", codes
        if wires + codes <= room:
            return
        if room < self._inputs:
            yield 1 + self._best(bit, self._inputs)[0], "wrap", 0
        if (wires, codes, room) == (3, 4, 4) and self._inputs == 6 and self._mask(bit):
            yield 2, "mask", 0
        for axis in range(wires) if wires <= _MANY_WIRES else (wires - 1,):
            halves = (self._best(half, self._inputs)[0] for half, _ in _halves(bit, axis))
            yield 1 + sum(halves), "split", axis

    def _build(
        self, bit: IntArray, wires: Sequence[int], room: int, pool: list[tuple[int, ...]]
    ) -> Source:
        bit, wires = _needed(bit, wires)
        _, kind, at = self._best(bit, room)
        match kind:
            case "signal":
                return _signal(bit, pool)
            case "leaf":
                return _leaf(bit, wires, at, pool)
            case "wrap":
                return Table((self._build(bit, wires, self._inputs, pool),), (0, 1))
            case "split":
                low, high = (
                    self._build(half, [wires[kept] for kept in rest], self._inputs, pool)
                    for half, rest in _halves(bit, at)
                )
                return Table((low, high, WeightBit(wires[at])), (0, 1, 0, 1, 0, 0, 1, 1))
            case "mask":
                mask = self._mask(bit)
                assert mask is not None
                return _masked(bit, wires, mask, pool)

    def _mask(self, bit: IntArray) -> Mask | None:
        key = bit.tobytes()
        if key not in self._masks:
            self._masks[key] = find_mask(_patterns(bit))
        return self._masks[key]


def _patterns(bit: IntArray) -> list[int]:
    """Return the column of each activation digit, the first weight bit's place the lowest."""
    wires = bit.ndim - 1
    flat = bit.transpose((*range(wires - 1, -1, -1), wires)).reshape(1 << wires, -1)
    return [int(value) for value in (flat << np.arange(1 << wires)[:, None]).sum(0)]


def _needed(bit: IntArray, wires: Sequence[int]) -> tuple[IntArray, Sequence[int]]:
    """Leave out the weight bits that make no difference."""
    kept = list(wires)
    for axis in range(bit.ndim - 2, -1, -1):
        low, high = np.take(bit, 0, axis), np.take(bit, 1, axis)
        if np.array_equal(low, high):
            bit = low
            del kept[axis]
    return np.ascontiguousarray(bit), kept


def _halves(bit: IntArray, axis: int) -> list[tuple[IntArray, list[int]]]:
    """Fix a weight bit at 0 and at 1; with each half the axes that it needs."""
    others = [other for other in range(bit.ndim - 1) if other != axis]
    found = [_needed(np.take(bit, value, axis), others) for value in (0, 1)]
    return [(half, list(kept)) for half, kept in found]


# ---------------------------------------------------------------- tables


def _signal(bit: IntArray, pool: list[tuple[int, ...]]) -> Source:
    """Return a function of the activation digit; one of the pool's or its complement if it can."""
    truth = tuple(int(value) for value in bit)
    if len(set(truth)) == 1:
        return Table((), truth[:1])
    inverse = tuple(1 - value for value in truth)
    if truth not in pool and inverse in pool:
        return Table((Recoded(inverse),), (1, 0))
    if truth not in pool:
        pool.append(truth)
    return Recoded(truth)


def _leaf(bit: IntArray, wires: Sequence[int], codes: int, pool: list[tuple[int, ...]]) -> Table:
    """Return one table of all weight bits and as many recoded bits as tell the patterns apart."""
    patterns = _patterns(bit)
    signals = _encode(patterns, codes, pool)
    numbers = [sum(s[x] << at for at, s in enumerate(signals)) for x in range(len(patterns))]
    of = dict(zip(numbers, patterns, strict=True))
    truth = [of.get(n, 0) >> w & 1 for n in range(1 << codes) for w in range(1 << len(wires))]
    sources = [*(WeightBit(wire) for wire in wires), *(Recoded(signal) for signal in signals)]
    return Table(tuple(sources), tuple(truth))


def _encode(
    patterns: Sequence[int], codes: int, pool: list[tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """Return ``codes`` bits that tell patterns apart; those of the pool first, others are added."""
    taken = list[tuple[int, ...]]()
    block = dict.fromkeys(patterns, 0)
    for signal in list(pool):
        value = dict(zip(patterns, signal, strict=True))
        if len(taken) == codes or any(value[p] != s for p, s in zip(patterns, signal, strict=True)):
            continue
        refined = {p: 2 * block[p] + value[p] for p in block}
        sizes = [list(refined.values()).count(number) for number in set(refined.values())]
        if max(sizes) <= 1 << codes - len(taken) - 1:
            block, taken = refined, [*taken, signal]
    rank = {
        p: sum(other < p for other in block if block[other] == block[p]) for p in block
    }  # within its block
    while len(taken) < codes:
        at = codes - len(taken) - 1
        signal = tuple(rank[p] >> at & 1 for p in patterns)
        taken.append(signal)
        pool.append(signal)
    return taken


def _computed(sources: Sequence[Source], function: Callable[..., int]) -> Table:
    """Return the table of a function of bits."""
    places = range(len(sources))
    rows = ([number >> at & 1 for at in places] for number in range(1 << len(sources)))
    return Table(tuple(sources), tuple(function(*row) for row in rows))


def _masked(bit: IntArray, wires: Sequence[int], mask: Mask, pool: list[tuple[int, ...]]) -> Table:
    """Return the two tables of a mask."""
    patterns = _patterns(bit)
    inner = np.array([[mask.inner[p] >> place & 1 for p in patterns] for place in range(8)])
    inner = inner.reshape(2, 2, 2, -1).transpose(2, 1, 0, 3)
    codes = log2_ceil(len(set(mask.inner.values())))
    side = _signal(np.array([mask.recoded[p] for p in patterns]), pool)

    def outer(t: int, w: int, v: int, u: int) -> int:
        return {"t": t, "~t": 1 - t, "0": 0, "1": 1}[mask.modes[w | v << 1][u]]

    seen = [WeightBit(wires[axis]) for axis in mask.axes]
    return _computed((_leaf(inner, wires, codes, pool), *seen, side), outer)
