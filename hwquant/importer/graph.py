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
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from hwquant.errors import BadInput, UnsupportedModel
from hwquant.float_graph import FloatNode, Integers
from hwquant.ir import INPUT, FloatArray, IntArray, Layout, Pads, Pair

Shape = tuple[int, int, int]  # (C, H, W)
NO_PADS: Pads = (0, 0, 0, 0)
PARTS = "abcdefgh"  # letters of the factors that channels are taken apart into


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
    """Live nodes in topological order, one input, one output; ``shapes`` are for a batch of one.

    A Cast to float is an Identity; ``integers`` is what the input holds, if no floats.
    """

    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, npt.NDArray[Any]]
    shapes: Mapping[str, tuple[int, ...]]
    input: str
    output: str
    integers: Integers | None = None


@dataclass(frozen=True)
class View:
    """An ONNX tensor as ``source``'s output, with the letters of C, H, W that each axis runs over.

    Letters of extent 1 are left out, so ``(1, 8, 1, 1)`` is ``("", "C", "", "")``. ``shared`` says
    that something else reads the values too, which forbids folding into ``source``. ``pads`` are
    zeros around the image that wait for a Conv to take them. Where ``split``, the channels are
    taken apart into factors of those sizes, whose letters are a, b, c, ... in place of C.
    """

    source: str
    axes: tuple[str, ...]
    shared: bool
    pads: Pads = NO_PADS
    split: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Choice:
    """Some pixels of a tensor, channel by channel.

    Channel m takes channel ``channels[m]`` of ``source`` (``int[M]``), from row and column
    ``offsets[m]`` (``int[M, 2]``) on in steps of ``stride``.
    """

    source: str
    channels: IntArray
    offsets: IntArray
    stride: Pair

    def is_crop(self, count: int) -> bool:
        """Whether all of ``count`` channels are taken, in their order, from one place on."""
        is_whole = np.array_equal(self.channels, np.arange(count))
        return is_whole and bool(np.all(self.offsets == self.offsets[0]))


def axes_of(letters: Sequence[str], shape: Shape) -> tuple[str, ...]:
    """Return ``letters`` without those that have extent 1 in ``shape``."""
    extents = dict(zip("CHW", shape, strict=True))
    return tuple(letter if extents.get(letter, 2) > 1 else "" for letter in letters)


def image_axes(shape: Shape, rank: int = 4) -> tuple[str, ...]:
    """Return the axes of an ONNX tensor ``(N, C, H, W)``, or ``(N, C, W)`` if of rank 3."""
    return axes_of(("", "C", "H", "W") if rank == 4 else ("", "C", "W"), shape)


def regroup(
    view: View, shape: Shape, target: Sequence[int]
) -> tuple[tuple[str, ...], tuple[int, ...]] | None:
    """Lay a view's letters along axes of size ``target``; return axes and ``split``.

    ``None`` where that would split a letter other than the channels'.
    """
    extents = dict(zip("CHW", shape, strict=True)) | dict(zip(PARTS, view.split, strict=False))
    rest = list("".join(view.axes))
    order = list(PARTS[: len(view.split)]) or ["C"]
    fresh = iter("nopqrstuvwxyz")
    axes = list[list[str]]()
    for size in target:
        group, extent = list[str](), 1
        while extent < size and rest:
            letter, wanted = rest.pop(0), size // extent
            if letter in order and extents[letter] > wanted:
                outer, inner = next(fresh), next(fresh)
                extents[outer], extents[inner] = wanted, extents[letter] // wanted
                if wanted * extents[inner] != extents[letter]:
                    return None
                order[order.index(letter) : order.index(letter) + 1] = outer, inner
                letter, rest = outer, [inner, *rest]
            extent *= extents[letter]
            group.append(letter)
        if extent != size:
            return None
        axes.append(group)
    return None if rest else named_parts(axes, order, extents)


def named_parts(
    axes: Sequence[Sequence[str]], order: Sequence[str], extents: Mapping[str, int]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Merge neighbouring parts of the channels, ``order``, and name them; return axes and split.

    Parts of extent 1 go; a single part that is left is C.
    """
    kept = [letter for letter in order if extents[letter] > 1]
    following = dict(pairwise(kept))
    runs = list[list[str]]()
    for group in axes:
        before = ""
        for letter in group:
            if letter in kept and before and following.get(before) == letter:
                runs[-1].append(letter)
            elif letter in kept:
                runs.append([letter])
            before = letter
    runs.sort(key=lambda run: kept.index(run[0]))
    names = dict(zip((run[0] for run in runs), PARTS if len(runs) > 1 else "C", strict=False))
    named = tuple(
        "".join(names.get(letter, "" if letter in order else letter) for letter in group)
        for group in axes
    )
    split = tuple(math.prod(extents[letter] for letter in run) for run in runs)
    return named, split if len(split) > 1 else ()


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
        self.is_half = any(array.dtype == np.float16 for array in graph.constants.values())
        self.nodes: dict[str, FloatNode] = {}
        self.notes: list[str] = []
        _, *sizes = graph.shapes[graph.input]
        letters = ["" if letter == "N" else letter for letter in layout.replace("F", "C")]
        extents = dict(zip(letters[1:], sizes, strict=True))
        shape = (extents["C"], extents.get("H", 1), extents.get("W", 1))
        self.shapes: dict[str, Shape] = {INPUT: shape}
        self.views = {graph.input: View(INPUT, axes_of(letters, shape), shared=True)}
        self.pending: dict[str, OnnxNode] = {}  # tensor -> elementwise operator, see `function`
        self.roots: dict[str, str] = {}  # of a pending tensor: the one that it is a function of
        self.folded = set[str]()  # tensors whose node computes a later one by now
        self.taken_apart = set[str]()  # nodes that other nodes compute, in parts or on the way
        self.choices = dict[str, Choice]()  # of the nodes that do nothing else

    def shape(self, node: OnnxNode, tensor: str) -> tuple[int, ...]:
        """Return the shape that ONNX gives a tensor."""
        if tensor not in self.graph.shapes:
            node.refuse(f"ONNX infers no shape for {tensor!r}")
        return self.graph.shapes[tensor]

    def view(self, node: OnnxNode, index: int = 0) -> View:
        """Return an operand that the network computes."""
        return self.unpadded(node, self.padded_view(node, index))

    def parts_view(self, node: OnnxNode, index: int = 0) -> View:
        """Return an operand that the network computes, its channels perhaps taken apart."""
        return self.unpadded(node, self.operand(node, index))

    def whole(self, node: OnnxNode, view: View) -> View:
        """Return a view whose channels are in one piece."""
        if view.split:
            node.refuse(
                f"{node.op} of channels that a Reshape took apart into {view.split}; hwquant "
                "handles that before products of heads alone"
            )
        return view

    def unpadded(self, node: OnnxNode, view: View) -> View:
        """Return a view that waits for no Conv to take its pads."""
        if view.pads != NO_PADS:
            node.refuse(
                f"{node.op} of an image padded by {view.pads} (top, left, bottom, right); hwquant "
                "handles a Pad of height and width right before a Conv, an AveragePool, or a "
                "MaxPool of what cannot be negative"
            )
        return view

    def padded_view(self, node: OnnxNode, index: int = 0) -> View:
        """Return an operand that the network computes, around which a Pad may have put zeros."""
        return self.whole(node, self.operand(node, index))

    def operand(self, node: OnnxNode, index: int = 0) -> View:
        """Return an operand that the network computes, perhaps padded or its channels apart."""
        tensor = node.inputs[index]
        if tensor not in self.views:
            node.refuse(
                f"operand {tensor!r} of {node.op} is constant; hwquant handles {node.op} of what "
                "the network computes from its input"
            )
        return self.views[tensor]

    def image(self, node: OnnxNode) -> tuple[View, Shape]:
        """Return the first operand, an image without pads, and its ``(C, H, W)``."""
        return self.image_of(node, self.view(node))

    def image_of(self, node: OnnxNode, view: View) -> tuple[View, Shape]:
        """Return a view, which must be ``(N, C, H, W)`` or ``(N, C, W)``, and its ``(C, H, W)``."""
        shape = self.shapes[view.source]
        rank = len(view.axes)
        if (
            rank not in (3, 4)
            or view.axes != image_axes(shape, rank)
            or (rank == 3 and shape[1] > 1)
        ):
            seen = self.shape(node, node.inputs[0])
            node.refuse(
                f"{node.op} of a tensor of shape {seen}; hwquant handles images (N, C, H, W) and "
                "sequences (N, C, L)"
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
        if values.dtype.kind != "f":
            node.refuse(
                f"weights {tensor!r} are {values.dtype}; hwquant handles float16, 32 and 64"
            )
        if bad := np.count_nonzero(~np.isfinite(values)):
            raise BadInput(f"{node.label}: {bad} NaN or infinite values in {tensor!r}")
        if not values.size or shape not in (None, values.shape):
            wanted = f"{shape} is needed" if shape else "it is empty"
            raise BadInput(f"{node.label}: {tensor!r} has shape {values.shape}; {wanted}")
        return values.astype(np.float64)

    def fresh(self, name: str) -> str:
        """Return ``name``, with a number if another node bears it."""
        taken = {node.name for node in self.graph.nodes} | set(self.nodes)
        count, made = 1, name
        while made in taken:
            count, made = count + 1, f"{name}_{count + 1}"
        return made

    def emit(
        self,
        made: FloatNode,
        node: OnnxNode,
        shape: Shape,
        axes: tuple[str, ...],
        split: tuple[int, ...] = (),
    ) -> None:
        """Add a node, whose output the ONNX node's output shows along ``axes``."""
        self.nodes[made.name] = made
        self.shapes[made.name] = shape
        self.show(node, View(made.name, axes, shared=False, split=split), axes)

    def emit_image(self, made: FloatNode, node: OnnxNode, shape: Shape) -> None:
        """Add a node whose output is ``(N, C, H, W)`` or ``(N, C, W)`` in ONNX."""
        rank = len(self.shape(node, node.outputs[0]))
        self.emit(made, node, shape, image_axes(shape, rank))

    def show(self, node: OnnxNode, view: View, axes: tuple[str, ...]) -> None:
        """Record that the node's output is ``view`` along other ``axes``; ONNX must agree."""
        tensor = node.outputs[0]
        channels, height, width = self.shapes[view.source]
        top, left, bottom, right = view.pads
        extents = {"C": channels, "H": height + top + bottom, "W": width + left + right}
        extents |= dict(zip(PARTS, view.split, strict=False))
        ours = tuple(math.prod(extents[letter] for letter in group) for group in axes)
        if (theirs := self.shape(node, tensor)) != ours:
            node.refuse(f"{node.op} gives shape {ours} in hwquant and {theirs} in ONNX")
        if any(self.uses[other] for other in node.outputs[1:]):
            node.refuse(f"{node.op} has more than one output in use")
        shared = view.shared or self.uses[tensor] != 1
        self.views[tensor] = View(view.source, axes, shared, view.pads, view.split)
