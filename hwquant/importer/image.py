"""ONNX operators on the pixels of an image: pools, reductions, Slice and Pad."""

import math
from dataclasses import replace

import numpy as np

from hwquant.float_graph import (
    FloatActivation,
    FloatAveragePool,
    FloatConv,
    FloatMaxPool,
    FloatNode,
    FloatShortcut,
)
from hwquant.functions import bounds
from hwquant.importer.channels import select
from hwquant.importer.fold import window_of
from hwquant.importer.graph import NO_PADS, Conversion, OnnxNode, View, axes_of, image_axes
from hwquant.importer.pixels import choose
from hwquant.ir import Pair


def pool(state: Conversion, node: OnnxNode) -> None:
    """Convert MaxPool and AveragePool, together with a Pad before them if that changes nothing."""
    view, shape = state.image_of(node, state.padded_view(node))
    window, dilations = node.ints["kernel_shape"], node.ints.get("dilations", (1,))
    kernel = (1, window[0]) if len(window) == 1 else (window[0], window[1])
    if max(dilations) > 1:
        node.refuse(f"{node.op} with dilations={dilations}; hwquant handles 1")
    stride, own, pads, size = window_of(node, kernel, shape, view.pads)
    if node.op == "MaxPool":
        if view.pads != NO_PADS and not _is_positive(state.nodes.get(view.source)):
            state.unpadded(node, view)
        if any(pad >= kernel[side % 2] for side, pad in enumerate(pads)):
            node.refuse(f"MaxPool with pads {pads} as large as its window {kernel}")
        made = FloatMaxPool(node.name, view.source, kernel, stride, pads)
    elif not any(pads):
        made = FloatAveragePool(node.name, view.source, kernel, stride)
    elif any(own) and not node.integer("count_include_pad", 0):
        node.refuse(
            f"AveragePool with pads {own} and count_include_pad=0; hwquant handles pads with "
            "count_include_pad=1"
        )
    else:
        weight = np.full((shape[0], 1, *kernel), 1 / math.prod(kernel))
        bias = np.zeros(shape[0])
        made = FloatConv(node.name, view.source, weight, bias, stride, pads, None, shape[0])
    state.emit_image(made, node, (shape[0], *size))


def _is_positive(node: FloatNode | None) -> bool:
    """Whether a padded zero never wins a maximum: the node's outputs are at least 0."""
    return isinstance(node, FloatActivation) and bounds(node.function)[0] >= 0


def global_pool(state: Conversion, node: OnnxNode) -> None:
    """Convert GlobalMaxPool and GlobalAveragePool."""
    view, (channels, height, width) = state.image(node)
    made = _whole_pool(node, view.source, (height, width))
    state.emit_image(made, node, (channels, 1, 1))


def reduced(state: Conversion, node: OnnxNode) -> None:
    """Convert ReduceMax and ReduceMean over height, width or both."""
    view = state.view(node)
    channels, height, width = state.shapes[view.source]
    rank = len(view.axes)
    reduced = {axis % rank for axis in state.integers(node, "axes", 1) or range(rank)}
    letters = "".join(view.axes[axis] for axis in reduced)
    if not set(letters) <= {"H", "W"} or not (letters or height == width == 1):
        node.refuse(
            f"{node.op} over axes {sorted(reduced)} of shape {state.shape(node, node.inputs[0])}; "
            "hwquant handles height and width"
        )
    kept = [(axis, "" if axis in reduced else group) for axis, group in enumerate(view.axes)]
    axes = tuple(
        group for axis, group in kept if node.integer("keepdims", 1) or axis not in reduced
    )
    window = height if "H" in letters else 1, width if "W" in letters else 1
    shape = (channels, height // window[0], width // window[1])
    state.emit(_whole_pool(node, view.source, window), node, shape, axes)


def _whole_pool(node: OnnxNode, source: str, window: Pair) -> FloatMaxPool | FloatAveragePool:
    if node.op in ("GlobalMaxPool", "ReduceMax"):
        return FloatMaxPool(node.name, source, window, window, pads=NO_PADS)
    return FloatAveragePool(node.name, source, window, window)


def slice_of(state: Conversion, node: OnnxNode) -> None:
    """Convert Slice of rows, columns and channels."""
    view = state.parts_view(node)
    sizes = state.shape(node, node.inputs[0])
    starts = state.integers(node, "starts", 1) or ()
    ends = state.integers(node, "ends", 2) or ()
    axes = state.integers(node, "axes", 3) or tuple(range(len(starts)))
    steps = state.integers(node, "steps", 4) or (1,) * len(starts)
    kept = dict[str, range]()
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen, group = range(*slice(start, end, step).indices(sizes[axis])), view.axes[axis]
        if chosen == range(sizes[axis]):
            continue
        if (group == "C" or view.split) and step == len(axes) == 1 and chosen:
            select(state, node, view, axis, chosen, keeps_axis=True)
            return
        if not chosen or group not in ("C", "H", "W") or (step < 0 and group != "C"):
            node.refuse(
                f"Slice {start}:{end}:{step} of axis {axis} of shape {sizes}; hwquant handles "
                "rows, columns and channels, and steps above 0"
            )
        kept[group] = chosen
    state.whole(node, view)
    if not kept:
        state.show(node, view, view.axes)
        return
    channels, height, width = state.shapes[view.source]
    stride = max(kept.get(letter, range(1)).step for letter in "HW")
    every = {letter: range(0, size, stride) for letter, size in (("H", height), ("W", width))}
    if kept != every:
        choose(state, node, view, kept, view.axes)
        return
    shape = (channels, -(-height // stride), -(-width // stride))
    made = FloatShortcut(node.name, view.source, (stride, stride), channels, channel_offset=0)
    state.emit(made, node, shape, axes_of(view.axes, shape))


def pad(state: Conversion, node: OnnxNode) -> None:
    """Convert a Pad of zero channels, or of zeros around an image, which wait for a Conv."""
    view = state.view(node)
    channels, height, width = state.shapes[view.source]
    rank = len(view.axes)
    order = _channels_last(state, view)
    if order is None:
        state.image(node)
        order = tuple(range(rank))
    pads = state.integers(node, "pads", 1) or ()
    axes = state.integers(node, "axes", 3) or tuple(range(rank))
    before, after = [0] * rank, [0] * rank
    for index, axis in enumerate(axes):
        before[axis], after[axis] = pads[index], pads[index + len(axes)]
    value = state.number(node, "value", 2, 0.0)
    mode = node.texts.get("mode", "constant")
    batch, outer, *first = (before[axis] for axis in order)
    last_batch, last_outer, *last = (after[axis] for axis in order)
    is_other = batch or last_batch or (any((*first, *last)) and (outer or last_outer))
    if mode != "constant" or value or is_other or min(*before, *after) < 0:
        node.refuse(
            f"Pad of {before} before and {after} after, mode {mode}, value {value:g}; hwquant "
            "handles zeros among the channels, or around an image before a Conv"
        )
    if any((*first, *last)):
        if node.outputs[0] == state.graph.output:
            node.refuse("Pad of the output; hwquant handles a Pad before a Conv")
        top, left = first if rank == 4 else (0, *first)
        bottom, right = last if rank == 4 else (0, *last)
        state.show(node, replace(view, pads=(top, left, bottom, right)), view.axes)
        return
    shape = (outer + channels + last_outer, height, width)
    source, stride, offset = view.source, (1, 1), outer
    sliced = state.nodes.get(source)
    if isinstance(sliced, FloatShortcut) and not view.shared:
        source, stride, offset = sliced.source, sliced.stride, sliced.channel_offset + outer
        del state.nodes[sliced.name], state.shapes[sliced.name]
    made = FloatShortcut(node.name, source, stride, shape[0], offset)
    letters = image_axes(shape, rank)
    state.emit(made, node, shape, tuple(letters[order.index(axis)] for axis in range(rank)))


def _channels_last(state: Conversion, view: View) -> tuple[int, ...] | None:
    """Return where the batch, the channels and the rest are, of an image with channels last."""
    order = (0, len(view.axes) - 1, *range(1, len(view.axes) - 1))
    if len(view.axes) not in (3, 4):
        return None
    letters = image_axes(state.shapes[view.source], len(view.axes))
    if view.axes == letters or tuple(view.axes[axis] for axis in order) != letters:
        return None
    return order
