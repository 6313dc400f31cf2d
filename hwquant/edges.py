"""Which layers and tensors lie at the network's edges, where codes have more bits."""

from typing import assert_never

from hwquant.ir import INPUT
from hwquant.lower import FloatCat, FloatLayer, FloatMac, FloatMax


def edge_layers(layers: tuple[FloatLayer, ...]) -> set[str]:
    """Names of the layers at the network's edges: those that read the input, and the last."""
    at_input = {INPUT}
    for layer in layers:
        if isinstance(layer, FloatMax) and layer.source in at_input:
            at_input.add(layer.name)
    macs = [layer for layer in layers if isinstance(layer, FloatMac)]
    return (
        {layers[-1].name}
        | {mac.name for mac in macs if mac.source in at_input}
        | (at_input - {INPUT})
    )


def wide_tensors(layers: tuple[FloatLayer, ...]) -> set[str]:
    """Names of the tensors that deserve the edge's bits.

    The input, what the last layer reads, and what is read as a residual or gate only: there,
    further digits cost no MACs. A max pool has its source's digits, and all that a concatenation
    puts side by side have the same: the edge's bits if no layer but the last reads any of it.
    """
    macs = [layer for layer in layers if isinstance(layer, FloatMac)]
    cats = {layer.name for layer in layers if isinstance(layer, FloatCat)}
    aside = {mac.skip.source for mac in macs if mac.skip} | {mac.gate for mac in macs if mac.gate}
    inner, last = {mac.source for mac in macs[:-1]}, macs[-1].source
    wide = set[str]()
    for group in _same_digits(layers):
        is_edge = INPUT in group or (last in group and not (group & cats and group & inner))
        is_aside = group & aside and not group & {*inner, last}
        if is_edge or is_aside:
            wide |= group
    return wide


def _same_digits(layers: tuple[FloatLayer, ...]) -> list[set[str]]:
    """Group the tensors whose codes have the same number of digits."""
    groups = [{INPUT}]
    for layer in layers:
        match layer:
            case FloatMac():
                bound = set[str]()
            case FloatMax():
                bound = {layer.source}
            case FloatCat():
                bound = set(layer.sources)
            case _:
                assert_never(layer)
        joined = {layer.name}.union(*(group for group in groups if group & bound))
        groups = [*(group for group in groups if not group & bound), joined]
    return groups
