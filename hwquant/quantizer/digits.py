"""How many digits the weights of a layer have, and the codes of a tensor: more at the edges."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from hwquant.float_graph import FloatEmbedding, FloatLayerNorm, FloatMatMul, FloatSoftmax
from hwquant.ir import INPUT, Pair, passes
from hwquant.quantizer.lower import FloatCat, FloatLayer, FloatMac, FloatMax

CodeKind = Literal["plain", "wide", "detailed"]

MAX_CODE_DIGITS = 2


@dataclass(frozen=True)
class Digits:
    """Digits of the weights of every layer, by its name, and the kind of every tensor's codes.

    ``wide`` is how many digits wide codes have.
    """

    weights: Mapping[str, int]
    codes: Mapping[str, CodeKind]
    wide: int

    def passes(self, mac: FloatMac) -> int:
        """Return how often a layer passes the array."""
        read = self.wide if self.codes[mac.source] == "wide" else 1
        return passes(mac.source, mac.groups, (self.weights[mac.name], read))


def edge_digits(layers: Sequence[FloatLayer], digit_bits: Pair, edge_bits: int) -> Digits:
    """Return the digits of a network in which only its edges have several.

    ``digit_bits`` are those of one digit of a weight and of an activation.
    """
    edges = edge_layers(layers)
    parts, wide = (math.ceil(edge_bits / bits) for bits in digit_bits)
    weights = {
        mac.name: parts if mac.name in edges and not only_scales(mac) else 1
        for mac in mac_layers(layers)
    }
    return Digits(weights, tensor_codes(layers), min(MAX_CODE_DIGITS, wide))


def only_scales(mac: FloatMac) -> bool:
    """Whether a layer has one weight a channel: of level 1, and the channel's scale says the rest.

    Not with a gate, before which real zero is an integer of the accumulator: that has to be fine.
    """
    return mac.weight[0].size == 1 and mac.gate is None


def edge_layers(layers: Sequence[FloatLayer]) -> set[str]:
    """Names of the layers whose weights have the edge's bits.

    Those that read the input, the last, and depthwise ones: a channel's few weights cannot make up
    for each other's errors, and hardly count in memory.
    """
    at_input = {INPUT}
    for layer in layers:
        if isinstance(layer, FloatMax) and layer.source in at_input:
            at_input.add(layer.name)
    macs = mac_layers(layers)
    return (
        {layers[-1].name}
        | {mac.name for mac in macs if mac.source in at_input or mac.groups > 1}
        | (at_input - {INPUT})
    )


def tensor_codes(layers: Sequence[FloatLayer]) -> dict[str, CodeKind]:
    """Kind of the codes of every tensor.

    ``wide`` codes have the edge's bits for every reader: the input, what the last layer reads, or
    an average pool before it, and what an inner layer reads without an activation function before
    it, or of a concatenation: it has two signs, and the levels of a power grid lie closest at its
    least value.
    ``detailed`` ones have them for residuals and gates alone, where further digits cost no MACs.
    All others are ``plain``. A max pool has its source's codes, and all that a concatenation puts
    side by side have the same.
    """
    macs = mac_layers(layers)
    norms = {layer.name for layer in layers if isinstance(layer, FloatLayerNorm | FloatMatMul)}
    cats = {layer.name for layer in layers if isinstance(layer, FloatCat)}
    beside = {mac.skip.source for mac in macs if mac.skip} | {mac.gate for mac in macs if mac.gate}
    signed = {mac.name for mac in macs if mac.function is None} | cats | norms
    inner, edges = {mac.source for mac in macs[:-1]} | factors_of(layers), {INPUT, macs[-1].source}
    edges |= {mac.source for mac in macs if mac.shared and mac.name in edges}
    kinds = dict[str, CodeKind]()
    for group in same_digits(layers):
        is_wide = group & edges or group & signed & inner
        kind: CodeKind = "wide" if is_wide else "detailed" if group & beside else "plain"
        kinds |= dict.fromkeys(group, kind)
    return kinds


def mac_layers(layers: Sequence[FloatLayer]) -> list[FloatMac]:
    """Return the layers that the array computes."""
    return [layer for layer in layers if isinstance(layer, FloatMac)]


def factors_of(layers: Sequence[FloatLayer]) -> set[str]:
    """Return the tensors that are multiplied with each other, none of them weights."""
    products = [layer for layer in layers if isinstance(layer, FloatMatMul)]
    return {name for product in products for name in (product.source, product.operand)}


def same_digits(layers: Sequence[FloatLayer]) -> list[set[str]]:
    """Group the tensors whose codes have the same number of digits."""
    groups = [{INPUT}]
    for layer in layers:
        match layer:
            case FloatMax():
                bound = {layer.source}
            case FloatCat():
                bound = set(layer.sources)
            case FloatMac() | FloatEmbedding() | FloatLayerNorm() | FloatMatMul() | FloatSoftmax():
                bound = set[str]()
            case _:
                assert_never(layer)
        joined = {layer.name}.union(*(group for group in groups if group & bound))
        groups = [*(group for group in groups if not group & bound), joined]
    return groups
