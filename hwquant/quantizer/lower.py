"""From a ``FloatGraph`` to the layers that the MAC array runs, still in float.

A convolution takes the residual add and the activation function behind it; average pools are folded
into the layer that follows; what has no convolution to sit on gets one with identity weights, which
is depthwise. A concatenation is a layer that computes nothing: its sources' codes lie side by side.
"""

import math
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from hwquant.errors import UnsupportedModel
from hwquant.float_graph import (
    FloatActivation,
    FloatAdd,
    FloatAveragePool,
    FloatConcat,
    FloatConv,
    FloatEmbedding,
    FloatGraph,
    FloatLayerNorm,
    FloatMatMul,
    FloatMaxPool,
    FloatMultiply,
    FloatNode,
    FloatShortcut,
    FloatSoftmax,
    Function,
    sources,
)
from hwquant.ir import INPUT, FloatArray, Pads, Pair

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
    """A ``ir.MacLayer`` to be: ``(sums + bias) * gate + skip``, then ``function``.

    ``weight`` is ``float[M, C / groups, KH, KW]``, its last two axes 1 if ``shared``. ``gate`` is
    the layer of a tensor ``(M, 1, 1)``; a layer has no gate and skip at once, and one with a gate
    has identity weights. ``tensor`` is the node of the ``FloatGraph`` whose output this layer
    computes.
    """

    name: str
    source: str
    weight: FloatArray
    bias: FloatArray
    kernel: Pair
    shared: bool
    stride: Pair
    pads: Pads
    groups: int
    skip: Skip | None
    gate: str | None
    function: Function | None
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


@dataclass(frozen=True)
class FloatCat:
    """Channels of several layers one after another; none is the input, none is there twice.

    Where a layer is in two of them, the sources of the shorter are the first of the longer: all
    that share a layer can lie in one place.
    """

    name: str
    sources: tuple[str, ...]
    tensor: str


# Layers of their own: the node itself, its sources the layers that compute them.
FloatAttention = FloatEmbedding | FloatLayerNorm | FloatMatMul | FloatSoftmax
FloatLayer = FloatMac | FloatMax | FloatCat | FloatAttention

_VALUE_READERS = (FloatEmbedding, FloatLayerNorm, FloatSoftmax)  # of values, which have no codes


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
        self.rows: list[list[str]] = []  # layers that concatenations put side by side
        self.values: dict[str, str] = {}  # tensor -> layer that makes it as values
        self.flat: dict[str, list[tuple[str, str]]] = {}  # concatenation -> tensors and layers

    def run(self) -> tuple[FloatLayer, ...]:
        for node in self.graph.nodes:
            if node.name in self.used and not self._is_absorbed(node):
                self._emit(node)
        last = self.layers[-1]
        if not isinstance(last, FloatMac) or last.function is not None:
            self._copy(self.graph.output, f"{self.graph.output}_output")
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
            case FloatConv() | FloatAdd() | FloatMultiply() if isinstance(reader, FloatActivation):
                return True
            case FloatConv() if isinstance(reader, FloatAdd):
                return self._main(reader) is node
            case FloatAveragePool():
                return isinstance(reader, FloatActivation) or self._folds(node) is not None
            case FloatShortcut():
                return self._folds(node) is not None or all(
                    isinstance(reader, FloatAdd) and self._skip(reader) == node.name
                    for reader in self.readers[node.name]
                )
            case FloatConcat():
                readers = self.readers[node.name]
                merged = all(isinstance(reader, FloatConcat) for reader in readers)
                return merged and node.name != self.graph.output
            case _:
                return False

    def _main(self, add: FloatAdd) -> FloatConv | None:
        """Return the convolution that takes an add: of two, the one with more MACs."""
        own = (self.nodes[name] for name in add.sources if self._only_reader(name) is add)
        mains = [node for node in own if isinstance(node, FloatConv)]
        return max(mains, key=lambda conv: conv.weight.size, default=None)

    def _skip(self, add: FloatAdd) -> str:
        """Return the operand that an add takes as its residual."""
        main = self._main(add)
        if main is not None:
            return add.sources[1] if add.sources[0] == main.name else add.sources[0]
        first, second = add.sources
        is_read = any(isinstance(reader, _VALUE_READERS) for reader in self.readers[first])
        return first if is_read or isinstance(self.nodes.get(first), FloatShortcut) else second

    def _values(self, node: FloatEmbedding | FloatLayerNorm | FloatSoftmax) -> str:
        """Return the layer that makes the values that a node reads.

        It is a copy where others read codes of the same tensor, or where an activation makes it.
        """
        tensor = node.source
        if tensor in self.values:
            return self.values[tensor]
        name = self.layer_of[tensor]
        made = next((layer for layer in self.layers if layer.name == name), None)
        is_activated = isinstance(made, FloatMac) and made.function is not None
        is_alone = isinstance(made, FloatMac | FloatAttention) and not is_activated
        is_alone &= tensor != self.graph.output and all(
            isinstance(reader, _VALUE_READERS)
            or (isinstance(reader, FloatAdd) and self._skip(reader) == tensor)
            for reader in self.readers[tensor]
        )
        self.values[tensor] = name if is_alone else self._copy(tensor, f"{node.name}_values")
        return self.values[tensor]

    def _folds(self, node: FloatAveragePool | FloatShortcut) -> FloatConv | None:
        """Return the convolution into which a pool or a choice of pixels folds: 1x1, unpadded.

        A pool of the whole image only does where few channels follow, and not at the end: the
        convolution would multiply every pixel.
        """
        reader = self._only_reader(node.name)
        if isinstance(node, FloatShortcut) and node.channels != self.graph.shapes[node.source][0]:
            return None
        if not isinstance(reader, FloatConv) or reader.weight.shape[2:] != UNIT:
            return None
        is_squeezed = len(reader.weight) < self.graph.shapes[node.name][0]
        is_end = reader.name == self.graph.output
        is_whole = self.graph.shapes[node.name][1:] == UNIT and isinstance(node, FloatAveragePool)
        if is_whole and (is_end or not is_squeezed):
            return None
        return reader if reader.pads == NO_PADS else None

    def _emit(self, node: FloatNode) -> None:
        match node:
            case FloatMaxPool():
                source = self.layer_of[node.source]
                self.layers.append(
                    FloatMax(node.name, source, node.kernel, node.stride, node.pads, node.name)
                )
            case FloatConcat():
                self.layers.append(FloatCat(node.name, self._row(node), node.name))
            case FloatMatMul():
                source, operand = self.layer_of[node.source], self.layer_of[node.operand]
                self.layers.append(replace(node, source=source, operand=operand))
            case FloatEmbedding() | FloatLayerNorm() | FloatSoftmax():
                self.layers.append(replace(node, source=self._values(node)))
            case _:
                self._add_mac(self._mac(node), node.name)
        self.layer_of[node.name] = self.layers[-1].name

    def _add_mac(self, mac: FloatMac, tensor: str) -> None:
        """Add a layer whose sources are still tensors."""
        skip = mac.skip and replace(mac.skip, source=self.layer_of[mac.skip.source])
        gate = mac.gate and self.layer_of[mac.gate]
        source = self.layer_of[mac.source]
        self.layers.append(replace(mac, source=source, skip=skip, gate=gate, tensor=tensor))

    def _copy(self, tensor: str, name: str) -> str:
        """Add a layer that computes ``tensor`` once more; return its name."""
        taken = {*self.nodes, *(layer.name for layer in self.layers)}
        while name in taken:
            name += "_copy"
        self._add_mac(self._identity(name, tensor), tensor)
        return name

    def _row(self, node: FloatConcat) -> tuple[str, ...]:
        """Return the layers to put side by side, with copies of those that cannot move there."""
        tensors, layers = (list(column) for column in zip(*self._flat(node), strict=True))
        row = next((row for row in self.rows if row[0] == layers[0]), list[str]())
        count = min(len(row), len(layers))
        if row[:count] != layers[:count]:
            row, count = [], 0
        placed = {INPUT}.union(*self.rows)
        for index in range(count, len(layers)):
            if layers[index] in placed:
                layers[index] = self._copy(tensors[index], f"{node.name}_{index}")
            placed.add(layers[index])
        if not row:
            self.rows.append(row)
        row += layers[len(row) :]
        self.flat[node.name] = list(zip(tensors, layers, strict=True))
        return tuple(layers)

    def _flat(self, node: FloatConcat) -> list[tuple[str, str]]:
        """Return the tensors of a concatenation, and of those that it reads, with their layers."""
        if node.name in self.flat:
            return self.flat[node.name]
        parts = list[tuple[str, str]]()
        for name in node.sources:
            source = self.nodes.get(name)
            is_nested = isinstance(source, FloatConcat)
            parts += self._flat(source) if is_nested else [(name, self.layer_of[name])]
        return parts

    def _mac(self, node: FloatNode) -> FloatMac:
        """Make the layer that ends in ``node``; its sources are still tensors."""
        match node:
            case FloatConv():
                return self._convolution(node)
            case FloatAdd():
                return self._sum(node)
            case FloatActivation():
                before = self.nodes.get(node.source)
                if before is not None and self._is_absorbed(before):
                    return replace(self._mac(before), function=node.function)
                return replace(self._identity(node.name, node.source), function=node.function)
            case FloatMultiply():
                return replace(self._identity(node.name, node.source), gate=node.gate)
            case FloatAveragePool():
                return self._average(node)
            case FloatShortcut():
                return self._selection(node)
            case FloatMaxPool() | FloatConcat():
                raise AssertionError(f"{node.name}: a layer of its own")
            case FloatEmbedding() | FloatLayerNorm() | FloatMatMul() | FloatSoftmax():
                raise AssertionError(f"{node.name}: a layer of its own")
            case _:
                assert_never(node)

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
            groups=node.groups,
            skip=None,
            gate=None,
            function=None,
            tensor=node.name,
        )
        before = self.nodes.get(node.source)
        if not isinstance(before, FloatAveragePool | FloatShortcut) or (
            self._folds(before) is not node
        ):
            return mac
        stride = (before.stride[0] * node.stride[0], before.stride[1] * node.stride[1])
        if isinstance(before, FloatShortcut):
            return replace(mac, source=before.source, stride=stride)
        return replace(
            mac,
            source=before.source,
            weight=node.weight / math.prod(before.kernel),
            kernel=before.kernel,
            shared=True,
            stride=stride,
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
        return identity(name, source, source, self.graph.shapes[source][0])

    def _average(self, node: FloatAveragePool) -> FloatMac:
        mac = self._identity(node.name, node.source)
        weight = mac.weight / math.prod(node.kernel)
        return replace(mac, weight=weight, kernel=node.kernel, shared=True, stride=node.stride)

    def _selection(self, node: FloatShortcut) -> FloatMac:
        mac = self._identity(node.name, node.source)
        count = len(mac.bias)
        span = slice(node.channel_offset, node.channel_offset + count)
        weight = np.zeros((node.channels, count, 1, 1))
        weight[span] = np.eye(count)[:, :, None, None]
        return replace(mac, weight=weight, bias=np.zeros(len(weight)), stride=node.stride, groups=1)


def identity(name: str, source: str, tensor: str, channels: int) -> FloatMac:
    """Make a depthwise layer that copies its source, which computes ``tensor``."""
    return FloatMac(
        name=name,
        source=source,
        weight=np.ones((channels, 1, 1, 1)),
        bias=np.zeros(channels),
        kernel=UNIT,
        shared=False,
        stride=UNIT,
        pads=NO_PADS,
        groups=channels,
        skip=None,
        gate=None,
        function=None,
        tensor=tensor,
    )
