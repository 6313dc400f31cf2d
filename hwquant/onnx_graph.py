"""A simplified ONNX network as plain records, and its conversion while under way.

ONNX tensors are flattened, transposed and squeezed on their way; a ``FloatGraph`` knows nothing but
``(C, H, W)``. So each ONNX tensor is kept as a ``View``: which node computes it, and which of the
letters C, H and W lie along each of its axes. Reshape and Transpose then only rewrite letters, and
a fully connected layer permutes its weights by them.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from hwquant.errors import BadInput, UnsupportedModel
from hwquant.ir import INPUT, FloatArray, FloatNode

Shape = tuple[int, int, int]  # (C, H, W)
Layout = Literal["NCHW", "NHWC", "NF"]


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """One operator; ``label`` is its name in the user's file, ``name`` a unique identifier."""

    op: str
    label: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ints: dict[str, tuple[int, ...]]
    floats: dict[str, float]
    texts: dict[str, str]

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is one integer."""
        return self.ints.get(name, (default,))[0]

    def has_input(self, index: int) -> bool:
        """Tell whether an optional input is given."""
        return len(self.inputs) > index and self.inputs[index] != ""

    def refuse(self, reason: str) -> NoReturn:
        """Raise ``UnsupportedModel`` in this node's name."""
        raise UnsupportedModel(f"{self.label}: {reason}")


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """Live nodes in topological order, one input, one output; ``shapes`` are for a batch of one."""

    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, npt.NDArray[Any]]
    shapes: Mapping[str, tuple[int, ...]]
    input: str
    output: str


@dataclass(frozen=True)
class View:
    """An ONNX tensor as ``source``'s output, with the letters of C, H, W that each axis runs over.

    Letters of extent 1 are left out, so ``(1, 8, 1, 1)`` is ``("", "C", "", "")``. ``shared`` says
    that something else reads the values too, which forbids folding into ``source``.
    """

    source: str
    axes: tuple[str, ...]
    shared: bool


def axes_of(letters: Sequence[str], shape: Shape) -> tuple[str, ...]:
    """Return ``letters`` without those that have extent 1 in ``shape``."""
    extents = dict(zip("CHW", shape, strict=True))
    return tuple(letter if extents.get(letter, 2) > 1 else "" for letter in letters)


def image_axes(shape: Shape) -> tuple[str, ...]:
    """Return the axes of an ONNX tensor ``(N, C, H, W)``."""
    return axes_of(("", "C", "H", "W"), shape)


def regroup(letters: str, shape: Shape, target: Sequence[int]) -> tuple[str, ...] | None:
    """Lay ``letters`` along axes of size ``target``; ``None`` where that would split a letter."""
    extents = dict(zip("CHW", shape, strict=True))
    axes = list[str]()
    rest = letters
    for size in target:
        group, extent = "", 1
        while extent < size and rest:
            extent *= extents[rest[0]]
            group, rest = group + rest[0], rest[1:]
        if extent != size:
            return None
        axes.append(group)
    return None if rest else tuple(axes)


def to_chw(array: FloatArray, letters: str, shape: Shape) -> FloatArray:
    """Split the last axis into ``letters`` and order them: ``[..., F] -> [..., C, H, W]``."""
    extents = dict(zip("CHW", shape, strict=True))
    order = letters + "".join(letter for letter in "CHW" if letter not in letters)
    lead = array.shape[:-1]
    split = array.reshape(*lead, *(extents[letter] for letter in order))
    return split.transpose(*range(len(lead)), *(len(lead) + order.index(c) for c in "CHW"))


class Conversion:
    """The nodes so far, and how each ONNX tensor shows one of them."""

    def __init__(self, graph: OnnxGraph, layout: Layout) -> None:
        self.graph = graph
        self.uses = Counter(tensor for node in graph.nodes for tensor in node.inputs)
        self.uses[graph.output] += 1
        self.nodes: dict[str, FloatNode] = {}
        self.notes: list[str] = []
        _, *sizes = graph.shapes[graph.input]
        match layout:
            case "NF":
                shape, letters = (sizes[0], 1, 1), ("", "C")
            case "NHWC":
                shape, letters = (sizes[2], sizes[0], sizes[1]), ("", "H", "W", "C")
            case "NCHW":
                shape, letters = (sizes[0], sizes[1], sizes[2]), ("", "C", "H", "W")
        self.shapes: dict[str, Shape] = {INPUT: shape}
        self.views = {graph.input: View(INPUT, axes_of(letters, shape), shared=True)}

    def shape(self, node: OnnxNode, tensor: str) -> tuple[int, ...]:
        """Return the shape that ONNX gives a tensor."""
        if tensor not in self.graph.shapes:
            node.refuse(f"ONNX infers no shape for {tensor!r}")
        return self.graph.shapes[tensor]

    def view(self, node: OnnxNode, index: int = 0) -> View:
        """Return an operand that the network computes."""
        tensor = node.inputs[index]
        if tensor not in self.views:
            node.refuse(f"operand {tensor!r} of {node.op} is constant")
        return self.views[tensor]

    def image(self, node: OnnxNode) -> tuple[View, Shape]:
        """Return the first operand, which must be ``(N, C, H, W)``, and its ``(C, H, W)``."""
        view = self.view(node)
        shape = self.shapes[view.source]
        if view.axes != image_axes(shape):
            seen = self.shape(node, node.inputs[0])
            node.refuse(
                f"{node.op} of a tensor of shape {seen}; hwquant handles images (N, C, H, W)"
            )
        return view, shape

    def integers(self, node: OnnxNode, attribute: str, index: int) -> tuple[int, ...] | None:
        """Return what older opsets keep as an attribute and newer ones as a constant input."""
        if not node.has_input(index):
            return node.ints.get(attribute)
        tensor = node.inputs[index]
        if tensor not in self.graph.constants:
            node.refuse(f"{attribute} of {node.op}, {tensor!r}, is not constant")
        return tuple(int(value) for value in self.graph.constants[tensor].reshape(-1))

    def number(self, node: OnnxNode, attribute: str, index: int, default: float) -> float:
        """Return a number that is an attribute in older opsets, a constant input in newer ones."""
        if not node.has_input(index):
            return node.floats.get(attribute, default)
        tensor = node.inputs[index]
        constant = self.graph.constants.get(tensor)
        if constant is None or constant.size != 1:
            node.refuse(f"{attribute} of {node.op}, {tensor!r}, is not a constant number")
        return float(constant.item())

    def weights(
        self, node: OnnxNode, index: int, shape: tuple[int, ...] | None = None
    ) -> FloatArray:
        """Return a constant operand, finite and, if ``shape`` is given, of that shape."""
        tensor = node.inputs[index]
        if tensor not in self.graph.constants:
            node.refuse(f"weights {tensor!r} of {node.op} are not constant")
        values = self.graph.constants[tensor]
        if values.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            node.refuse(f"weights {tensor!r} are {values.dtype}; hwquant handles float32, float64")
        if bad := np.count_nonzero(~np.isfinite(values)):
            raise BadInput(f"{node.label}: {bad} NaN or infinite values in {tensor!r}")
        if not values.size or shape not in (None, values.shape):
            wanted = f"{shape} is needed" if shape else "it is empty"
            raise BadInput(f"{node.label}: {tensor!r} has shape {values.shape}; {wanted}")
        return values.astype(np.float64)

    def emit(self, made: FloatNode, node: OnnxNode, shape: Shape, axes: tuple[str, ...]) -> None:
        """Add a node, whose output the ONNX node's output shows along ``axes``."""
        self.nodes[made.name] = made
        self.shapes[made.name] = shape
        self.show(node, View(made.name, axes, shared=False), axes)

    def emit_image(self, made: FloatNode, node: OnnxNode, shape: Shape) -> None:
        """Add a node whose output is ``(N, C, H, W)`` in ONNX."""
        self.emit(made, node, shape, image_axes(shape))

    def show(self, node: OnnxNode, view: View, axes: tuple[str, ...]) -> None:
        """Record that the node's output is ``view`` along other ``axes``; ONNX must agree."""
        tensor = node.outputs[0]
        extents = dict(zip("CHW", self.shapes[view.source], strict=True))
        ours = tuple(math.prod(extents[letter] for letter in group) for group in axes)
        if (theirs := self.shape(node, tensor)) != ours:
            node.refuse(f"{node.op} gives shape {ours} in hwquant and {theirs} in ONNX")
        if any(self.uses[other] for other in node.outputs[1:]):
            node.refuse(f"{node.op} has more than one output in use")
        self.views[tensor] = View(view.source, axes, view.shared or self.uses[tensor] != 1)
