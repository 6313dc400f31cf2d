"""Some of a tensor's channels, or all in another order: Split, Slice and shuffles of groups.

They are the rows of the linear layer before that compute them, or else a 1x1 convolution, whose
weights are ones and zeros.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwquant.float_graph import FloatConv, Moments
from hwquant.importer.graph import NO_PADS, PARTS, Conversion, OnnxNode, View, named_parts
from hwquant.ir import IntArray


def split(state: Conversion, node: OnnxNode) -> None:
    """Convert Split of channels, or of a part of them."""
    view = state.parts_view(node)
    axis = node.integer("axis", 0) % len(view.axes)
    start = 0
    for index, tensor in enumerate(node.outputs):
        stop = start + state.shape(node, tensor)[axis]
        name = state.fresh(f"{node.name}_{index}")
        piece = replace(node, name=name, outputs=(tensor,))
        select(state, piece, view, axis, range(start, stop), keeps_axis=True)
        start = stop


def select(
    state: Conversion, node: OnnxNode, view: View, axis: int, chosen: range, *, keeps_axis: bool
) -> None:
    """Emit a part of the channels, which are what ``axis`` runs over."""
    sizes = view.split or (state.shapes[view.source][0],)
    letters = PARTS[: len(sizes)] if view.split else "C"
    part = letters.find(view.axes[axis]) if view.axes[axis] else -1
    if part < 0:
        node.refuse(
            f"{node.op} along axis {axis} of shape {state.shape(node, node.inputs[0])}; hwquant "
            "handles parts of the channels, and the first token"
        )
    extents = dict(zip(letters, sizes, strict=True)) | {letters[part]: len(chosen)}
    groups = [list(group) for group in view.axes]
    if not keeps_axis:
        del groups[axis]
    axes, parts = named_parts(groups, letters, extents)
    _emit(state, node, view, _indices(sizes).take(chosen, axis=part), axes, parts)


def shuffle(state: Conversion, node: OnnxNode, view: View, axes: Sequence[str]) -> bool:
    """Emit the channels in the order that one of ``axes`` has their parts in; tell if one has."""
    letters = PARTS[: len(view.split)]
    order = next((group for group in axes if group and sorted(group) == list(letters)), None)
    if order is None:
        return False
    rows = _indices(view.split).transpose([letters.index(letter) for letter in order])
    _emit(state, node, view, rows, tuple("C" if group == order else group for group in axes), ())
    return True


def _indices(sizes: tuple[int, ...]) -> IntArray:
    return np.arange(np.prod(sizes), dtype=np.int64).reshape(sizes)


def _emit(
    state: Conversion,
    node: OnnxNode,
    view: View,
    chosen: IntArray,
    axes: tuple[str, ...],
    parts: tuple[int, ...],
) -> None:
    rows = chosen.ravel()
    channels, *size = state.shapes[view.source]
    layer = state.nodes.get(view.source)
    if isinstance(layer, FloatConv) and layer.groups == 1:
        moments = layer.moments and Moments(layer.moments.mean[rows], layer.moments.std[rows])
        made = replace(
            layer, name=node.name, weight=layer.weight[rows], bias=layer.bias[rows], moments=moments
        )
        state.taken_apart.add(layer.name)
    else:
        weight = np.eye(channels)[rows][:, :, None, None]
        bias = np.zeros(len(rows))
        made = FloatConv(node.name, view.source, weight, bias, (1, 1), NO_PADS, None)
    state.emit(made, node, (len(rows), size[0], size[1]), axes, parts)
