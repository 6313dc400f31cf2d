"""From a ``FloatGraph`` to the layers that the MAC array runs, still in float.

A convolution takes the residual add and the ReLU behind it; average pools are folded into the layer
that follows; what has no convolution to sit on gets one with identity weights.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from hwquant.errors import UnsupportedModel
from hwquant.ir import (
    INPUT,
    FloatAdd,
    FloatArray,
    FloatAveragePool,
    FloatConv,
    FloatGraph,
    FloatMaxPool,
    FloatNode,
    FloatRelu,
    FloatShortcut,
    Pads,
    Pair,
)

UNIT: Pair = (1, 1)
NO_PADS: Pads = (0, 0, 0, 0)


@dataclass(frozen=True)
class Skip:
    """The second operand of a residual add, as in ``ir.Residual`` but for its multiplier."""

    source: str
    stride: Pair
    channel_offset: int


@dataclass(frozen=True, eq=False)
class FloatMac:
    """A ``ir.MacLayer`` to be: ``weight`` is ``float[M, C, KH, KW]``, ``[M, C, 1, 1]`` if shared.

    ``tensor`` is the node of the ``FloatGraph`` whose output this layer computes.
    """

    name: str
    source: str
    weight: FloatArray
    bias: FloatArray
    kernel: Pair
    shared: bool
    stride: Pair
    pads: Pads
    skip: Skip | None
    has_activation: bool
    tensor: str


@dataclass(frozen=True)
class FloatMax:
    """A ``ir.MaxPoolLayer`` to be."""

    name: str
    source: str
    kernel: Pair
    stride: Pair
    pads: Pads
    tensor: str


FloatLayer = FloatMac | FloatMax


def sources(node: FloatNode) -> tuple[str, ...]:
    """Names of the tensors that a node reads."""
    return node.sources if isinstance(node, FloatAdd) else (node.source,)


def lower(graph: FloatGraph) -> tuple[FloatLayer, ...]:
    """Fuse the nodes that the output depends on into layers, in topological order.

    A layer bears the name of its convolution, or of the node that it was made for.

    Raises
    ------
    UnsupportedModel
        If the network has no node.
    """
    if not graph.nodes:
        raise UnsupportedModel(f"{graph.name}: the network has no layer")
    return _Lowering(graph).run()


class _Lowering:
    def __init__(self, graph: FloatGraph) -> None:
        self.graph = graph
        self.nodes = {node.name: node for node in graph.nodes}
        self.used = self._ancestors(graph.output)
        self.readers: dict[str, list[FloatNode]] = {name: [] for name in (INPUT, *self.nodes)}
        for node in graph.nodes:
            for source in sources(node) if node.name in self.used else ():
                self.readers[source].append(node)
        self.layers: list[FloatLayer] = []
        self.layer_of = {INPUT: INPUT}  # tensor -> layer that computes its codes

    def run(self) -> tuple[FloatLayer, ...]:
        for node in self.graph.nodes:
            if node.name in self.used and not self._is_absorbed(node):
                self._emit(node)
        last = self.layers[-1]
        if isinstance(last, FloatMax) or last.has_activation:
            output = self.graph.output
            mac = self._identity(f"{output}_output", output)
            self.layers.append(replace(mac, source=self.layer_of[output], tensor=output))
        return tuple(self.layers)

    def _ancestors(self, name: str) -> set[str]:
        found: set[str] = set()
        pending = [name]
        while pending:
            name = pending.pop()
            if name not in found and name != INPUT:
                found.add(name)
                pending.extend(sources(self.nodes[name]))
        return found

    def _only_reader(self, name: str) -> FloatNode | None:
        readers = self.readers[name]
        return readers[0] if len(readers) == 1 and name != self.graph.output else None

    def _is_absorbed(self, node: FloatNode) -> bool:
        """Whether a later node's layer computes this node too."""
        reader = self._only_reader(node.name)
        match node:
            case FloatConv() | FloatAdd() if isinstance(reader, FloatRelu):
                return True
            case FloatConv() if isinstance(reader, FloatAdd):
                return self._main(reader) is node
            case FloatAveragePool():
                return isinstance(reader, FloatRelu) or self._folds(node) is not None
            case FloatShortcut():
                return all(
                    isinstance(reader, FloatAdd) and self._skip(reader) == node.name
                    for reader in self.readers[node.name]
                )
            case _:
                return False

    def _main(self, add: FloatAdd) -> FloatConv | None:
        """Return the convolution that takes an add: of two, the one with more MACs."""
        convs = [self.nodes[name] for name in add.sources if self._only_reader(name) is add]
        mains = [node for node in convs if isinstance(node, FloatConv)]
        return max(mains, key=lambda conv: conv.weight.size, default=None)

    def _skip(self, add: FloatAdd) -> str:
        """Return the operand that an add takes as its residual."""
        main = self._main(add)
        if main is not None:
            return add.sources[1] if add.sources[0] == main.name else add.sources[0]
        shortcut = isinstance(self.nodes.get(add.sources[0]), FloatShortcut)
        return add.sources[0] if shortcut else add.sources[1]

    def _folds(self, pool: FloatAveragePool) -> FloatConv | None:
        """Return the convolution into which an average pool folds: 1x1 and without padding."""
        reader = self._only_reader(pool.name)
        if isinstance(reader, FloatConv) and reader.weight.shape[2:] == UNIT:
            return reader if reader.pads == NO_PADS else None
        return None

    def _emit(self, node: FloatNode) -> None:
        if isinstance(node, FloatMaxPool):
            self.layers.append(
                FloatMax(
                    node.name,
                    self.layer_of[node.source],
                    node.kernel,
                    node.stride,
                    node.pads,
                    node.name,
                )
            )
        else:
            mac = self._mac(node)
            source = self.layer_of[mac.source]
            skip = mac.skip and replace(mac.skip, source=self.layer_of[mac.skip.source])
            self.layers.append(replace(mac, source=source, skip=skip, tensor=node.name))
        self.layer_of[node.name] = self.layers[-1].name

    def _mac(self, node: FloatNode) -> FloatMac:
        """Make the layer that ends in ``node``; its sources are still tensors."""
        match node:
            case FloatConv():
                return self._convolution(node)
            case FloatAdd():
                return self._sum(node)
            case FloatRelu():
                before = self.nodes.get(node.source)
                if before is not None and self._is_absorbed(before):
                    return replace(self._mac(before), has_activation=True)
                return replace(self._identity(node.name, node.source), has_activation=True)
            case FloatAveragePool():
                return self._average(node)
            case FloatShortcut():
                return self._selection(node)
            case FloatMaxPool():
                raise AssertionError("a max pool is a layer of its own")

    def _convolution(self, node: FloatConv) -> FloatMac:
        kernel = (node.weight.shape[2], node.weight.shape[3])
        mac = FloatMac(
            name=node.name,
            source=node.source,
            weight=node.weight,
            bias=node.bias,
            kernel=kernel,
            shared=False,
            stride=node.stride,
            pads=node.pads,
            skip=None,
            has_activation=False,
            tensor=node.name,
        )
        pool = self.nodes.get(node.source)
        if not isinstance(pool, FloatAveragePool) or self._folds(pool) is not node:
            return mac
        return replace(
            mac,
            source=pool.source,
            weight=node.weight / math.prod(pool.kernel),
            kernel=pool.kernel,
            shared=True,
            stride=(pool.stride[0] * node.stride[0], pool.stride[1] * node.stride[1]),
        )

    def _sum(self, node: FloatAdd) -> FloatMac:
        main, skip = self._main(node), self._skip(node)
        other = node.sources[1] if node.sources[0] == skip else node.sources[0]
        mac = self._identity(node.name, other) if main is None else self._convolution(main)
        stride, offset = UNIT, 0
        shortcut = self.nodes.get(skip)
        if isinstance(shortcut, FloatShortcut) and self._is_absorbed(shortcut):
            skip, stride, offset = shortcut.source, shortcut.stride, shortcut.channel_offset
        return replace(mac, skip=Skip(skip, stride, offset))

    def _identity(self, name: str, source: str) -> FloatMac:
        channels = self.graph.shapes[source][0]
        return FloatMac(
            name=name,
            source=source,
            weight=np.eye(channels)[:, :, None, None],
            bias=np.zeros(channels),
            kernel=UNIT,
            shared=False,
            stride=UNIT,
            pads=NO_PADS,
            skip=None,
            has_activation=False,
            tensor=source,
        )

    def _average(self, node: FloatAveragePool) -> FloatMac:
        mac = self._identity(node.name, node.source)
        weight = mac.weight / math.prod(node.kernel)
        return replace(mac, weight=weight, kernel=node.kernel, shared=True, stride=node.stride)

    def _selection(self, node: FloatShortcut) -> FloatMac:
        mac = self._identity(node.name, node.source)
        span = slice(node.channel_offset, node.channel_offset + len(mac.bias))
        weight = np.zeros((node.channels, len(mac.bias), 1, 1))
        weight[span] = mac.weight
        return replace(mac, weight=weight, bias=np.zeros(node.channels), stride=node.stride)


def edge_layers(layers: tuple[FloatLayer, ...]) -> set[str]:
    """Names of the layers at the network's edges: those that read the input, and the last."""
    at_input = {INPUT}
    for layer in layers:
        if isinstance(layer, FloatMax) and layer.source in at_input:
            at_input.add(layer.name)
    return {layers[-1].name} | {layer.name for layer in layers if layer.source in at_input}


def wide_tensors(layers: tuple[FloatLayer, ...]) -> set[str]:
    """Names of the tensors that deserve the edge's bits.

    The input, what the last layer reads, and what is read as a residual only: there, further digits
    cost no MACs. A max pool has its source's digits.
    """
    residuals = {mac.skip.source for mac in layers if isinstance(mac, FloatMac) and mac.skip}
    wide = {INPUT, layers[-1].source} | (residuals - {layer.source for layer in layers})
    for layer in reversed(layers):
        if isinstance(layer, FloatMax) and layer.name in wide:
            wide.add(layer.source)
    for layer in layers:
        if isinstance(layer, FloatMax) and layer.source in wide:
            wide.add(layer.name)
    return wide
