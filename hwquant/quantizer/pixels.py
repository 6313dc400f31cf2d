"""How the sensor's integers become the codes that the first layer reads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hwquant.float_graph import FloatConv, FloatGraph, sources, with_source
from hwquant.ir import INPUT, FloatArray, IntArray
from hwquant.power import Codebook, Grid
from hwquant.quantizer.calibrate import Values, column, operands
from hwquant.quantizer.lower import FloatLayer, FloatMac
from hwquant.quantizer.ranges import Coding, Ranks

MAX_DIGITS = 4  # of a pixel, each a channel


@dataclass(frozen=True, eq=False)
class Pixels:
    """Codes of every pixel, ``low .. low + 2**bits - 1``, as ranks in ``coding``'s book.

    ``tables`` is ``int[D, 2**bits]``: pixel channel c becomes the D channels ``d * C + c``.
    """

    tables: IntArray
    coding: Coding

    @property
    def digits(self) -> int:
        """Channels of codes that a channel of pixels becomes."""
        return len(self.tables)

    def ranks(self, values: Values, low: FloatArray, high: FloatArray) -> Ranks:
        """Codes of real values, ``[C, N, H, W] -> int[D * C, N, H, W]``, each the nearest pixel's.

        ``low`` and ``high`` (``float[C]``) are the values of the first and the last pixel.
        """
        last = self.tables.shape[1] - 1
        places = (values - column(low, values)) * column(last / (high - low), values)
        found = np.clip(np.rint(places), 0, last).astype(np.int64)
        return self.tables[:, found].reshape(-1, *found.shape[1:])


def absorb_scale(
    graph: FloatGraph, low: FloatArray, high: FloatArray
) -> tuple[FloatGraph, FloatArray, FloatArray]:
    """Take the scale and shift of pixels that a network starts with into the pixels' values.

    Returns the network without it, and the values of the first and the last pixel behind it. A
    batch norm stays where it is: its statistics tell more than those of synthetic images.
    """
    match [node for node in graph.nodes if INPUT in sources(node)]:
        case [FloatConv(moments=None, stride=(1, 1), pads=(0, 0, 0, 0)) as first]:
            scale = first.weight[:, 0, 0, 0]
        case _:
            return graph, low, high
    is_scale = first.weight.shape == (len(low), 1, 1, 1) and first.groups == len(low)
    if not is_scale or scale.min() <= 0 or graph.output == first.name:
        return graph, low, high
    others = (node for node in graph.nodes if node is not first)
    nodes = tuple(with_source(node, first.name, INPUT) for node in others)
    return replace(graph, nodes=nodes), low * scale + first.bias, high * scale + first.bias


def choose_pixels(
    layers: Sequence[FloatLayer],
    grid: Grid,
    books: tuple[Codebook, Codebook],
    low: FloatArray,
    high: FloatArray,
    bits: tuple[int, int],
) -> Pixels:
    """Choose the pixels' codes; ``low`` and ``high`` as in `Pixels.ranks`.

    ``books`` are those of plain and of wide codes, ``bits`` those of a pixel and of an edge, which
    decide whether a pixel may lose any.
    """
    (plain, wide), (pixel_bits, edge_bits) = books, bits
    split = None
    if edge_bits >= pixel_bits and may_split(layers, len(low)):
        split = split_pixels(grid, plain, low, high, pixel_bits)
    return split or whole_pixels(wide, low, high, pixel_bits)


def whole_pixels(book: Codebook, low: FloatArray, high: FloatArray, bits: int) -> Pixels:
    """Give every pixel one code, the nearest; ``low`` and ``high`` as in `Pixels.ranks`."""
    tables = book.rank(np.linspace(0.0, 1.0, 2**bits))[np.newaxis]
    return Pixels(tables, Coding(low, high - low, book))


def split_pixels(
    grid: Grid, book: Codebook, low: FloatArray, high: FloatArray, bits: int
) -> Pixels | None:
    """Spell every pixel in digits, each a channel of its own; ``None`` if it takes too many.

    A digit's place is in the channel's scale, and so goes into the weights: no pass over the array
    is needed for it, only columns, of which a word of few channels leaves most idle.

    Error
    -----
    None if levels are whole. Else half a level's gap, shrunk by the widest: there are two digits.
    """
    last = 2**bits - 1
    if grid.full_scale:
        places = exact_places(grid, last)
        if len(places) not in range(1, MAX_DIGITS + 1):
            return None
        tables = spell(grid.whole, places, np.arange(last + 1, dtype=np.int64))
        shares = [place * grid.full_scale / last for place in places]
    else:
        shares = [1.0, float(np.diff(grid.levels).max())]
        values = np.linspace(0.0, 1.0, last + 1)
        digits = np.searchsorted(grid.levels, values, side="right") - 1
        tables = np.stack([digits, book.rank((values - grid.levels[digits]) / shares[1])])
    zero = np.concatenate([low, np.zeros((len(shares) - 1) * len(low))])
    black = np.clip(np.rint(-low / (high - low) * last), 0, last).astype(np.int64)
    coding = Coding(zero, np.outer(shares, high - low).ravel(), book, tables[:, black].ravel())
    return Pixels(tables, coding)


def exact_places(grid: Grid, last: int) -> tuple[int, ...]:
    """Places of the fewest digits with which whole levels spell ``0..last``, the last place first.

    The numbers that the places so far spell, from 0 without a gap, must fill the widest gap between
    the levels of the next. Empty if the levels are not whole, or leave gaps that nothing fills.
    """
    if not grid.full_scale:
        return ()
    gaps = np.diff(grid.whole)
    run = int(np.argmin(gaps == 1)) if (gaps > 1).any() else grid.top
    places, reach = (1,), run
    while reach < last:
        needed = -(-(last - reach) // grid.full_scale)
        place = min((reach + 1) // int(gaps.max()), needed)
        if place < 1:
            return ()
        places, reach = (place, *places), reach + place * grid.full_scale
    return places


def spell(levels: IntArray, places: Sequence[int], numbers: IntArray) -> IntArray:
    """Digits of whole numbers, each as large as fits: ``int[n] -> int[len(places), n]``."""
    digits: list[IntArray] = []
    for place in places:
        digits.append(np.searchsorted(place * levels, numbers, side="right") - 1)
        numbers = numbers - place * levels[digits[-1]]
    return np.stack(digits)


def may_split(layers: Sequence[FloatLayer], channels: int) -> bool:
    """Whether the digits of a pixel may be channels: one channel, read by plain layers alone.

    Of more channels the digits would take the columns that a row of the first kernel fills.
    """
    readers = [layer for layer in layers if INPUT in operands(layer)]
    return channels == 1 and all(
        isinstance(layer, FloatMac)
        and not layer.shared
        and layer.gate != INPUT
        and (layer.skip is None or layer.skip.source != INPUT)
        for layer in readers
    )
