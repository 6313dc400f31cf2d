"""Cross-layer equalization: channels scaled between convolutions so that their ranges match.

What one convolution loses the next one gains, so the network computes the same; a pass over the
float network, before it is lowered.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from hwquant.float_graph import (
    FloatActivation,
    FloatConv,
    FloatGraph,
    FloatNode,
    Moments,
    Relu,
    per_input,
    sources,
)
from hwquant.ir import FloatArray

MOST_SWEEPS = 100
CONVERGED = 1e-4  # of a scale that no longer moves


def equalize(graph: FloatGraph) -> FloatGraph:
    """Give every pair of convolutions equal ranges per channel between them.

    A pair has nothing between it but a ReLU without ceiling, if that, and nothing else reads what
    is between it. In a chain of them (a depthwise one is both a second and a first) pairs disturb
    each other: they are swept over until no scale moves.

    Error
    -----
    None: ``relu(s * x) = s * relu(x)`` for s > 0, up to the rounding of float64.

    Source
    ------
    Nagel et al. 2019, section 4.1. Differs: ranges are largest magnitudes; channels that
    are zero on either side are left alone; ReLU6 is not made a ReLU; high biases are not absorbed.
    """
    nodes = {node.name: node for node in graph.nodes}
    pairs = find_pairs(graph)
    for _ in range(MOST_SWEEPS):
        farthest = 0.0
        for first, second in pairs:
            before, behind = nodes[first], nodes[second]
            assert isinstance(before, FloatConv)
            assert isinstance(behind, FloatConv)
            scale = _scale(_output_range(before), _input_range(behind))
            nodes[first], nodes[second] = _divided(before, scale), _multiplied(behind, scale)
            farthest = max(farthest, float(np.abs(scale - 1).max()))
        if farthest < CONVERGED:
            break
    return replace(graph, nodes=tuple(nodes.values()))


def find_pairs(graph: FloatGraph) -> list[tuple[str, str]]:
    """Names of the convolutions between which channels can be scaled, in topological order."""
    nodes = {node.name: node for node in graph.nodes}
    reads = Counter([graph.output, *(name for node in graph.nodes for name in sources(node))])
    pairs = list[tuple[str, str]]()
    for node in graph.nodes:
        if isinstance(node, FloatConv):
            first = _before(node.source, nodes, reads)
            if first is not None:
                pairs.append((first, node.name))
    return pairs


def _before(name: str, nodes: dict[str, FloatNode], reads: Counter[str]) -> str | None:
    """Return the convolution behind which there is only one reader of ``name``."""
    if reads[name] > 1:
        return None
    match nodes.get(name):
        case FloatConv():
            return name
        case FloatActivation(source=source, function=Relu(ceiling=None)):
            is_alone = isinstance(nodes.get(source), FloatConv) and reads[source] == 1
            return source if is_alone else None
        case _:
            return None


def _scale(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return what the first is divided by and the second multiplied by, so that they are equal."""
    is_alive = (first > 0) & (second > 0)
    return np.sqrt(np.where(is_alive, first, 1.0)) / np.sqrt(np.where(is_alive, second, 1.0))


def _output_range(conv: FloatConv) -> FloatArray:
    """Largest magnitude of every output channel's weights."""
    return np.abs(conv.weight).max(axis=(1, 2, 3))


def _input_range(conv: FloatConv) -> FloatArray:
    """Largest magnitude of the weights that read each input channel."""
    each = np.abs(conv.weight).max(axis=(2, 3))
    return each.reshape(conv.groups, -1, each.shape[1]).max(axis=1).ravel()


def _divided(conv: FloatConv, scale: FloatArray) -> FloatConv:
    moments = conv.moments and Moments(conv.moments.mean / scale, conv.moments.std / scale)
    weight = conv.weight / scale[:, None, None, None]
    return replace(conv, weight=weight, bias=conv.bias / scale, moments=moments)


def _multiplied(conv: FloatConv, scale: FloatArray) -> FloatConv:
    each = per_input(scale, conv.groups, len(conv.weight))
    return replace(conv, weight=conv.weight * each[:, :, None, None])
