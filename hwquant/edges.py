"""Which layers and tensors lie at the network's edges, where codes have more bits."""

from typing import Literal, assert_never

from hwquant.float_graph import FloatEmbedding, FloatLayerNorm, FloatMatMul, FloatSoftmax
from hwquant.ir import INPUT
from hwquant.lower import FloatCat, FloatLayer, FloatMac, FloatMax

CodeKind = Literal["plain", "wide", "detailed"]


def edge_layers(layers: tuple[FloatLayer, ...]) -> set[str]:
    """Names of the layers whose weights have the edge's bits.

    Those that read the input, the last, and depthwise ones: a channel's few weights cannot make up
    for each other's errors, and hardly count in memory.
    """
    at_input = {INPUT}
    for layer in layers:
        if isinstance(layer, FloatMax) and layer.source in at_input:
            at_input.add(layer.name)
    macs = [layer for layer in layers if isinstance(layer, FloatMac)]
    return (
        {layers[-1].name}
        | {mac.name for mac in macs if mac.source in at_input or mac.groups > 1}
        | (at_input - {INPUT})
    )


def tensor_codes(layers: tuple[FloatLayer, ...]) -> dict[str, CodeKind]:
    """Kind of the codes of every tensor.

    ``wide`` codes have the edge's bits for every reader: the input, what the last layer reads, and
    what an inner layer reads without an activation function before it, or of a concatenation: it
    has two signs, and the levels of a power grid lie closest at its least value.
    ``detailed`` ones have them for residuals and gates alone, where further digits cost no MACs.
    All others are ``plain``. A max pool has its source's codes, and all that a concatenation puts
    side by side have the same.
    """
    macs = [layer for layer in layers if isinstance(layer, FloatMac)]
    products = [layer for layer in layers if isinstance(layer, FloatMatMul)]
    norms = {layer.name for layer in layers if isinstance(layer, FloatLayerNorm | FloatMatMul)}
    cats = {layer.name for layer in layers if isinstance(layer, FloatCat)}
    beside = {mac.skip.source for mac in macs if mac.skip} | {mac.gate for mac in macs if mac.gate}
    signed = {mac.name for mac in macs if mac.function is None} | cats | norms
    factors = {name for product in products for name in (product.source, product.operand)}
    inner, edges = {mac.source for mac in macs[:-1]} | factors, {INPUT, macs[-1].source}
    kinds = dict[str, CodeKind]()
    for group in _same_digits(layers):
        is_wide = group & edges or group & signed & inner
        kind: CodeKind = "wide" if is_wide else "detailed" if group & beside else "plain"
        kinds |= dict.fromkeys(group, kind)
    return kinds


def _same_digits(layers: tuple[FloatLayer, ...]) -> list[set[str]]:
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
