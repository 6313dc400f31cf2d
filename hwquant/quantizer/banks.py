"""Copies that let two banks of activation memory do: a layer finds its two operands apart.

A layer reads its source from one bank and its residual or gate from the other. Where no choice of
banks allows that (a layer that adds its own input, parts of one concat, an odd cycle of sums), one
of the two is copied, by a layer with identity weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hwquant.ir import INPUT
from hwquant.quantizer.lower import FloatAttention, FloatCat, FloatLayer, FloatMac, identity


def separate(
    layers: Sequence[FloatLayer], shapes: Mapping[str, tuple[int, int, int]]
) -> tuple[FloatLayer, ...]:
    """Copy what a layer would not find apart from its other operand, in the order of layers.

    ``shapes`` gives ``(C, H, W)`` of every tensor. Networks with attention, for which there is no
    hardware, stay as they are.
    """
    plain = [layer for layer in layers if not isinstance(layer, FloatAttention)]
    if len(plain) < len(layers):
        return tuple(layers)
    sides = _Sides()
    for layer in plain:
        for part in layer.sources if isinstance(layer, FloatCat) else ():
            sides.join(layer.name, part, differ=False)
    tensors = {INPUT: INPUT} | {layer.name: layer.tensor for layer in plain}
    made: list[FloatLayer] = []
    for layer in plain:
        if isinstance(layer, FloatMac) and not sides.are_apart(layer):
            name = f"{layer.name}_operand"
            while name in tensors:
                name += "_copy"
            copied = layer.skip.source if layer.skip else layer.source
            tensor = tensors[copied]
            tensors[name] = tensor
            made.append(identity(name, copied, tensor, shapes[tensor][0]))
            if layer.skip:
                layer = replace(layer, skip=replace(layer.skip, source=name))
            else:
                layer = replace(layer, source=name)
        made.append(layer)
    return tuple(made)


class _Sides:
    """Tensors in two banks: which share one and which do not, as far as layers have told."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[str, bool]] = {}  # tensor -> group of such, side within it

    def are_apart(self, layer: FloatMac) -> bool:
        """Put a layer's operands, if there are two, in different banks; tell if that was done."""
        operand = layer.gate or (layer.skip and layer.skip.source)
        return operand is None or self.join(layer.source, operand, differ=True)

    def join(self, one: str, other: str, *, differ: bool) -> bool:
        """Put two tensors in one bank or, if they shall ``differ``, in two; tell if that was done.

        It is not where what is known already forbids it.
        """
        group, side = self.found.setdefault(one, (one, False))
        moved, opposite = self.found.setdefault(other, (other, False))
        flip = side ^ opposite ^ differ
        if group == moved:
            return not flip
        for name, (its, at) in self.found.items():
            if its == moved:
                self.found[name] = (group, at ^ flip)
        return True
