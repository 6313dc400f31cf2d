"""Where tensors lie: two banks of activation memory, one word a pixel and group of channels.

Channels come last: a word holds ``cols`` channels of one pixel. A layer reads its source from one
bank while its residual or gate is read from the other, so the two never share a bank. A tensor of
two digits is two planes of words (of a detailed one MAC layers walk the first alone); a split input
has one in each bank. An input of few channels is *packed*, see ``Packing``. A concat and its parts
are stored as one: a part is some words of every pixel of it.

On a device with SPRAMs, which read or write in a cycle, the banks are made of them: no layer writes
to one that it reads, and the input is there before it is read.
"""

from dataclasses import dataclass, replace
from itertools import count, pairwise

from hwquant.errors import UnsupportedModel
from hwquant.fpga.devices import SPRAM_WORDS, has_sprams
from hwquant.ir import INPUT, ConcatLayer, Layer, MacLayer, QuantGraph, sources_of
from hwquant.scheduler.layout import Layout, layouts, parts
from hwquant.scheduler.plan import LINE_DELAY, Plan, log2_ceil

_RING_ROWS = 2  # one is written while one is read


@dataclass(frozen=True)
class Packing:
    """What the loader stores for the only layer that reads the input: codes that it wants together.

    Either, for each row of the image and column of the output, the ``KW * C`` codes of a word that
    a row of the kernel covers; or, for each place of the output, the ``KH * KW * C`` codes of its
    ``windows``, in as many words as that takes. Of windows a ring of a few rows is stored, for the
    layer walks them while the frame arrives.
    """

    layer: MacLayer
    windows: bool

    @property
    def kernel(self) -> tuple[int, int]:
        """Rows and columns of the kernel whose codes are stored together."""
        return (self.layer.kernel[0] if self.windows else 1, self.layer.kernel[1])

    @property
    def codes(self) -> int:
        """Codes that are stored together."""
        return self.kernel[0] * self.kernel[1] * self.layer.channels_in


@dataclass(frozen=True)
class Placement:
    """Where a tensor lies: ``base`` of plane 0, words a plane, words from pixel to pixel.

    Height and width are as stored. ``layout`` says what the words hold, ``whole`` in which tensor
    they are. ``ring`` are the words, a power of two from address 0 on, over which a tensor is
    written again and again, the planes of a pixel side by side; 0 if all of it is stored.
    """

    bank: int
    base: int
    plane: int
    pitch: int
    layout: Layout
    height: int
    width: int
    digits: int
    whole: str
    split: bool = False
    ring: int = 0

    @property
    def row(self) -> int:
        """Words from row to row."""
        return self.width * self.pitch

    @property
    def groups(self) -> int:
        """Words of a pixel that are this tensor's."""
        return self.layout.words


def _consumers(graph: QuantGraph, name: str) -> list[Layer]:
    return [layer for layer in graph.layers if name in sources_of(layer)]


def operand_of(layer: Layer) -> str | None:
    """Return the name of a layer's second operand: a residual or a gate."""
    return layer.operand if isinstance(layer, MacLayer) else None


def packings(graph: QuantGraph, plan: Plan) -> list[Packing | None]:
    """Return the ways to store the input: ``None`` is one word, or several, for each pixel.

    The first is taken unless another saves cycles. Windows are for few channels, a layer whose
    output is stored, and pads that leave every window a pixel; a line of the image has to be so
    long that a column comes out of the line buffer after it went in. They are read while others are
    written, which SPRAMs cannot.
    """
    consumers = _consumers(graph, INPUT)
    if len(consumers) != 1:
        return [None]
    (layer,) = consumers
    if not isinstance(layer, MacLayer) or layer.shared or layer.source != INPUT:
        return [None]
    if layer.operand == INPUT:
        return [None]
    channels, (rows, columns) = layer.channels_in, layer.kernel
    is_row = columns > 1 and columns * channels <= plan.cols
    has_windows = (
        rows * columns > 1
        and 2 * channels <= plan.cols
        and layer is not graph.layers[-1]
        and layer.pads[0] < rows
        and layer.pads[1] < columns
        and graph.input.tensor.width > LINE_DELAY
        and not has_sprams(plan.device)
    )
    found: list[Packing | None] = [Packing(layer, windows=False) if is_row else None]
    return [*found, Packing(layer, windows=True)] if has_windows else found


def place(
    graph: QuantGraph, plan: Plan, packing: Packing | None
) -> tuple[dict[str, Placement], tuple[int, int]]:
    """Place every tensor of ``graph`` but the last; return the places and the words of each bank.

    Raises
    ------
    UnsupportedModel
        If a layer adds its own source, second operands cannot be given banks of their own, a
        tensor is part of two concats, or SPRAMs do not suit the network.
    """
    found = layouts(graph, plan.cols)
    part_of = parts(graph, found)
    tensors = [graph.input.tensor, *(layer.output for layer in graph.layers[:-1])]
    last_use = {tensor.name: at for at, tensor in enumerate(tensors)}
    for at, layer in enumerate(graph.layers):
        last_use |= dict.fromkeys(sources_of(layer), at)
    for name, part in part_of.items():  # a whole lives as long as any part of it
        if name in last_use:
            last_use[part.whole] = max(last_use[part.whole], last_use[name])
    whole_of = {tensor.name: part_of[tensor.name].whole for tensor in tensors}
    banks = _assign_banks(graph, whole_of)
    in_sprams = has_sprams(plan.device)
    apart = _kept_apart(graph, whole_of) if in_sprams else {}
    splittable = not (packing is not None and packing.windows) and all(
        operand_of(layer) is None and isinstance(layer, MacLayer)
        for layer in _consumers(graph, INPUT)
    )
    places: dict[str, Placement] = {}
    wholes: dict[str, _Area] = {}
    depth = [1, 1]
    for born, tensor in enumerate(tensors):
        part = part_of[tensor.name]
        height, width, layout = tensor.height, tensor.width, found[tensor.name]
        pitch = found[part.whole].words
        split = splittable and tensor.name == INPUT and tensor.parts == 2
        packed = packing if tensor.name == INPUT else None
        if packed is not None:
            width, layout = packed.layer.output.width, Layout(plan.cols, (packed.codes,))
            pitch = layout.words
        plane, ring = height * width * pitch, 0
        if packed is not None and packed.windows:
            height, plane, pitch = packed.layer.output.height, pitch, pitch * tensor.parts
            ring = 1 << log2_ceil(_RING_ROWS * width * pitch)
        bank = 0 if split else banks[part.whole]
        if part.whole not in wholes:
            # alive while this is first written: everything still read by the layer that writes it
            alive = [area for name, area in wholes.items() if last_use[name] >= born - 1]
            words = ring or (plane if split else plane * tensor.parts)
            used = (0, 1) if split else (bank,)
            near = [area for area in alive if set(used) & set(area.banks)]
            if in_sprams:
                base = _fit_in_spram(part.whole, near, words, apart)
            else:
                base = _first_fit(near, words)
            wholes[part.whole] = _Area(part.whole, used, base, words)
            for bank_used in used:
                depth[bank_used] = max(depth[bank_used], base + words)
        base = wholes[part.whole].base + part.offset
        places[tensor.name] = Placement(
            bank, base, plane, pitch, layout, height, width, tensor.parts, part.whole, split, ring
        )
    if in_sprams:
        depth = [-(-words // SPRAM_WORDS) * SPRAM_WORDS for words in depth]
    return places, (depth[0], depth[1])


@dataclass(frozen=True)
class _Area:
    """Words ``base .. base + words - 1`` of some banks, and whose they are."""

    whole: str
    banks: tuple[int, ...]
    base: int
    words: int


def _first_fit(alive: list[_Area], words: int) -> int:
    base = 0
    for area in sorted(alive, key=lambda area: area.base):
        if base + words <= area.base:
            break
        base = max(base, area.base + area.words)
    return base


def _fit_in_spram(whole: str, alive: list[_Area], words: int, apart: dict[str, set[str]]) -> int:
    """Return the first base in an SPRAM without any of the tensors that ``whole`` keeps apart."""
    if words > SPRAM_WORDS:
        raise UnsupportedModel(f"{whole}: takes {words} words; an SPRAM holds {SPRAM_WORDS}")
    for start in count(0, SPRAM_WORDS):
        inside = [area for area in alive if area.base // SPRAM_WORDS == start // SPRAM_WORDS]
        base = start + _first_fit([replace(area, base=area.base - start) for area in inside], words)
        is_apart = apart[whole].isdisjoint(area.whole for area in inside)
        if is_apart and base + words <= start + SPRAM_WORDS:
            return base
    raise AssertionError


def _kept_apart(graph: QuantGraph, whole_of: dict[str, str]) -> dict[str, set[str]]:
    """Return, for each tensor, those that a layer reads while it writes it, or the reverse."""
    apart: dict[str, set[str]] = {whole: set() for whole in whole_of.values()}
    for layer in graph.layers[:-1]:
        if isinstance(layer, ConcatLayer):
            continue
        written = whole_of[layer.name]
        for read in sources_of(layer):
            if whole_of[read] == written:
                raise UnsupportedModel(
                    f"{layer.name}: reads and writes parts of {written}, which lie in one SPRAM; "
                    "hwquant needs a device without SPRAMs"
                )
            apart[written].add(whole_of[read])
            apart[whole_of[read]].add(written)
    return apart


def _assign_banks(graph: QuantGraph, whole_of: dict[str, str]) -> dict[str, int]:
    """Give a layer's source and operand different banks: a two-colouring that alternates.

    So an input that one layer reads, without an operand, lies apart from that layer's output: the
    loader may write the one while the layer writes the other.

    Tensors are in order of birth; the banks are those of the wholes that they lie in.
    """
    names = list(dict.fromkeys(whole_of.values()))
    apart: dict[str, set[str]] = {name: set() for name in names}
    for layer in graph.layers:
        operand = operand_of(layer)
        if operand is None or not isinstance(layer, MacLayer):
            continue
        if operand == layer.source:
            raise UnsupportedModel(
                f"{layer.name}: adds its own input; hwquant needs a layer between them"
            )
        source, other = whole_of[layer.source], whole_of[operand]
        if source == other:
            raise UnsupportedModel(
                f"{layer.name}: its input {layer.source} and its second operand {operand} are "
                f"parts of {source}, so in one bank; hwquant needs a copy of one of them"
            )
        apart[source].add(other)
        apart[other].add(source)
    banks: dict[str, int] = {}
    for before, name in pairwise(["", *names]):
        if name in banks:
            continue
        banks[name] = 1 - banks.get(before, 1)
        queue = [name]
        while queue:
            here = queue.pop()
            for other in sorted(apart[here]):
                if other not in banks:
                    banks[other] = 1 - banks[here]
                    queue.append(other)
                elif banks[other] == banks[here]:
                    raise UnsupportedModel(
                        f"{other}: its residual sums form an odd cycle with {here}; "
                        "hwquant has two activation banks"
                    )
    return banks
