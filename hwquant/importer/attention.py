"""ONNX operators of transformers: tokens, heads, their products, LayerNormalization, Softmax.

A tensor of tokens is an image whose last axis is the channels'. Attention takes the channels apart,
into queries, keys and values and into heads, and moves the parts: a ``View`` then has a letter for
each. What picks some of the channels becomes a layer with the rows of the one before it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwquant.float_graph import (
    FloatEmbedding,
    FloatLayerNorm,
    FloatMatMul,
    FloatShortcut,
    FloatSoftmax,
)
from hwquant.importer.channels import select
from hwquant.importer.graph import PARTS, Conversion, OnnxNode, Shape, View, axes_of
from hwquant.importer.pixels import choose


def gather(state: Conversion, node: OnnxNode) -> None:
    """Convert Gather of one part of the channels, or of the first token."""
    view = state.parts_view(node)
    axis = node.integer("axis", 0) % len(view.axes)
    indices, group = state.graph.constants.get(node.inputs[1]), view.axes[axis]
    size, shape = state.shape(node, node.inputs[0])[axis], state.shapes[view.source]
    if indices is not None and indices.ndim == 1 and indices.size > 1 and group == "C":
        choose(state, node, view, {"C": [int(index) % size for index in indices]}, view.axes)
        return
    if indices is None or indices.size != 1 or indices.ndim > 1:
        node.refuse(
            "Gather of more than one index; hwquant handles one that is constant, and channels"
        )
    index, keeps_axis = int(indices.item()) % size, indices.ndim == 1
    kept = [("" if at == axis else letters) for at, letters in enumerate(view.axes)]
    axes = tuple(letters for at, letters in enumerate(kept) if keeps_axis or at != axis)
    if group in ("H", "W") and index:
        choose(state, node, view, {group: [index]}, axes)
        return
    if group != _tokens(shape) or not group:
        select(state, node, view, axis, range(index, index + 1), keeps_axis=keeps_axis)
        return
    if index:
        node.refuse(f"Gather of token {index}; hwquant handles the first, 0, and parts of channels")
    made = FloatShortcut(node.name, view.source, shape[1:], shape[0], channel_offset=0)
    state.emit(made, node, (shape[0], 1, 1), axes, view.split)


def _tokens(shape: Shape) -> str:
    return "".join(axes_of("HW", shape))


def matrix_product(state: Conversion, node: OnnxNode) -> None:
    """Convert MatMul of two tensors of tokens, ``q @ k.T`` or ``p @ v``, one head or several."""
    left, right = state.parts_view(node, 0), state.parts_view(node, 1)
    shape, other = state.shapes[left.source], state.shapes[right.source]
    heads, inner = _heads(left)
    lead = left.axes[:-2]
    is_known = (heads, inner) == _heads(right) and left.axes[-2:] == (_tokens(shape), inner)
    is_known &= right.axes[:-2] == lead and "".join(lead) == ("a" if heads > 1 else "")
    if not is_known or right.axes[-2:] not in (
        (inner, _tokens(other)),
        (_tokens(other), inner),
    ):
        seen = " and ".join(str(state.shape(node, tensor)) for tensor in node.inputs)
        node.refuse(
            f"MatMul of two tensors of shape {seen}; hwquant handles, head by head, tokens by "
            "channels times channels by tokens, and the result times tokens by channels"
        )
    sums_channels = right.axes[-1] != inner
    count = heads * other[1] * other[2] if sums_channels else other[0]
    made = FloatMatMul(node.name, left.source, right.source, heads, sums_channels)
    parts = (heads, count // heads) if heads > 1 else ()
    state.emit(made, node, (count, *shape[1:]), left.axes, parts)


def _heads(view: View) -> tuple[int, str]:
    """Return how many heads a tensor has, and the letter of the channels in one."""
    match view.split:
        case ():
            return 1, "C"
        case (heads, _):
            return heads, "b"
        case _:
            return 0, ""


def softmax(state: Conversion, node: OnnxNode) -> None:
    """Convert Softmax over the channels, or over those of each head."""
    view = state.parts_view(node)
    channels = state.shapes[view.source][0]
    axis, last = node.integer("axis", -1), len(view.axes) - 1
    inner = PARTS[len(view.split) - 1] if view.split else "C"
    if axis % len(view.axes) != last or view.axes[last] != inner:
        node.refuse(
            f"Softmax over axis {axis} of shape {state.shape(node, node.inputs[0])}; inside the "
            "network hwquant handles the last axis, of channels or of a head's tokens"
        )
    groups = channels // view.split[-1] if view.split else 1
    made = FloatSoftmax(node.name, view.source, groups)
    state.emit(made, node, state.shapes[view.source], view.axes, view.split)


def layer_norm(state: Conversion, node: OnnxNode) -> None:
    """Convert LayerNormalization over the channels, the last axis."""
    view = state.view(node)
    shape = state.shapes[view.source]
    if node.integer("axis", -1) not in (-1, len(view.axes) - 1) or view.axes[-1] != "C":
        node.refuse(
            f"LayerNormalization from axis {node.integer('axis', -1)} of shape "
            f"{state.shape(node, node.inputs[0])}; hwquant handles the channels, as last axis"
        )
    scale = state.weights(node, 1, (shape[0],))
    bias = state.weights(node, 2, (shape[0],)) if node.has_input(2) else np.zeros(shape[0])
    epsilon = node.floats.get("epsilon", 1e-5)
    made = FloatLayerNorm(node.name, view.source, scale, bias, epsilon)
    chosen = state.nodes.get(view.source)
    if not isinstance(chosen, FloatShortcut) or view.shared:
        state.emit(made, node, shape, view.axes)
        return
    # The norm of a chosen token is the chosen one of all norms: so what is chosen has codes.
    del state.nodes[chosen.name], state.shapes[chosen.name]
    state.nodes[made.name] = replace(made, source=chosen.source)
    state.shapes[made.name] = state.shapes[chosen.source]
    state.emit(replace(chosen, source=made.name), node, shape, view.axes)


def class_tokens(state: Conversion, node: OnnxNode) -> None:
    """Convert Concat of constant tokens and those of a tensor, in this order."""
    *constant, last = range(len(node.inputs))
    seen: Sequence[tuple[int, ...]] = [
        state.graph.constants[tensor].shape
        if tensor in state.graph.constants
        else state.shape(node, tensor)
        for tensor in node.inputs
    ]
    axis = node.integer("axis", 1) % len(seen[last])
    view = None if node.inputs[last] in state.graph.constants else state.view(node, last)
    shape = state.shapes[view.source] if view else (0, 0, 0)
    if (
        view is None
        or any(node.inputs[index] not in state.graph.constants for index in constant)
        or view.axes[-2:] != (_tokens(shape), "C")
        or axis != len(view.axes) - 2
    ):
        node.refuse(
            f"Concat along axis {axis} of constants and tensors of shape "
            f"{', '.join(map(str, seen))}; hwquant handles constant tokens before others"
        )
    tokens = [state.weights(node, index).reshape(-1, shape[0]) for index in constant]
    rows = np.concatenate([*tokens, np.zeros((shape[1] * shape[2], shape[0]))])
    made = FloatEmbedding(node.name, view.source, rows.T[:, :, None])
    axes = (*view.axes[:-2], "H", "C")
    state.emit(made, node, (shape[0], len(rows), 1), axes)
