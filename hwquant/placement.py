"""Where tensors lie: two banks of activation memory, one word a pixel and group of channels.

Channels come last: a word holds ``cols`` channels of one pixel. A layer reads its source from one
bank while its residual is read from the other, so the two never share a bank. A tensor of two
digits is two planes of words; a split input has one in each bank. An input whose kernel row fits in
a word is *packed*: the loader stores, for each output column, the ``KW * C`` codes the row covers.
"""

from dataclasses import dataclass
from itertools import pairwise

from hwquant.errors import UnsupportedModel
from hwquant.ir import INPUT, Layer, MacLayer, QuantGraph, Tensor
from hwquant.plan import Plan


@dataclass(frozen=True)
class Placement:
    """Where a tensor lies: ``base`` of plane 0, words a plane, words a pixel; shape as stored."""

    bank: int
    base: int
    plane: int
    groups: int
    height: int
    width: int
    digits: int
    split: bool = False

    @property
    def words(self) -> int:
        """Words in one bank."""
        return self.plane if self.split else self.plane * self.digits


def _consumers(graph: QuantGraph, name: str) -> list[Layer]:
    return [layer for layer in graph.layers if layer.source == name or (residual_of(layer) == name)]


def residual_of(layer: Layer) -> str | None:
    """Return the name of a layer's residual operand."""
    if isinstance(layer, MacLayer) and layer.residual is not None:
        return layer.residual.source
    return None


def packed_kernel(graph: QuantGraph, plan: Plan) -> MacLayer | None:
    """Return the one layer that reads the input, if a row of its kernel fits in a word."""
    consumers = _consumers(graph, INPUT)
    if len(consumers) != 1:
        return None
    (layer,) = consumers
    if not isinstance(layer, MacLayer) or layer.shared or layer.source != INPUT:
        return None
    if residual_of(layer) == INPUT or layer.kernel[1] == 1:
        return None
    fits = layer.kernel[1] * graph.input.tensor.channels <= plan.cols
    return layer if fits else None


def _shape_in_memory(tensor: Tensor, plan: Plan, packed: MacLayer | None) -> tuple[int, int, int]:
    """Return height, width and words a pixel as stored."""
    if packed is not None and tensor.name == INPUT:
        return tensor.height, packed.output.width, 1
    return tensor.height, tensor.width, -(-tensor.channels // plan.cols)


def place(
    graph: QuantGraph, plan: Plan, packed: MacLayer | None
) -> tuple[dict[str, Placement], tuple[int, int]]:
    """Place every tensor of ``graph`` but the last; return the places and the words of each bank.

    Raises
    ------
    UnsupportedModel
        If a layer adds its own source, or residuals cannot be given banks of their own.
    """
    tensors = [graph.input.tensor, *(layer.output for layer in graph.layers[:-1])]
    last_use = {tensor.name: at for at, tensor in enumerate(tensors)}
    for at, layer in enumerate(graph.layers):
        for name in (layer.source, residual_of(layer)):
            if name is not None:
                last_use[name] = at
    banks = _assign_banks(graph, [tensor.name for tensor in tensors])
    splittable = graph.input.tensor.parts == 2 and all(
        layer.source == INPUT and residual_of(layer) is None and isinstance(layer, MacLayer)
        for layer in _consumers(graph, INPUT)
    )
    places: dict[str, Placement] = {}
    depth = [1, 1]
    for born, tensor in enumerate(tensors):
        # alive while this tensor is written: everything still read by the layer that writes it
        alive = [places[t.name] for t in tensors[:born] if last_use[t.name] >= born - 1]
        height, width, groups = _shape_in_memory(tensor, plan, packed)
        plane = height * width * groups
        split = splittable and tensor.name == INPUT
        bank = 0 if split else banks[tensor.name]
        words = plane if split else plane * tensor.parts
        base = _first_fit([other for other in alive if other.split or other.bank == bank], words)
        places[tensor.name] = Placement(
            bank, base, plane, groups, height, width, tensor.parts, split
        )
        for used in (0, 1) if split else (bank,):
            depth[used] = max(depth[used], base + words)
    return places, (depth[0], depth[1])


def _first_fit(alive: list[Placement], words: int) -> int:
    base = 0
    for place in sorted(alive, key=lambda p: p.base):
        if base + words <= place.base:
            break
        base = max(base, place.base + place.words)
    return base


def _assign_banks(graph: QuantGraph, names: list[str]) -> dict[str, int]:
    """Give a layer's source and residual different banks: a two-colouring that alternates."""
    apart: dict[str, set[str]] = {name: set() for name in names}
    for layer in graph.layers:
        residual = residual_of(layer)
        if residual is None:
            continue
        if residual == layer.source:
            raise UnsupportedModel(
                f"{layer.name}: adds its own input; hwquant needs a layer between them"
            )
        apart[layer.source].add(residual)
        apart[residual].add(layer.source)
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
