"""``convert`` makes a ``FloatGraph`` of a simplified ONNX network, one operator at a time."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hwquant import onnx_attention as attention
from hwquant.errors import UnsupportedModel
from hwquant.float_graph import (
    FloatActivation,
    FloatAdd,
    FloatAveragePool,
    FloatConcat,
    FloatConv,
    FloatGraph,
    FloatMaxPool,
    FloatMultiply,
    FloatNode,
    FloatShortcut,
)
from hwquant.functions import bounds
from hwquant.ir import Layout, Pair
from hwquant.lower import sources
from hwquant.onnx_fold import arithmetic, batch_norm, convolution, fully_connected, window_of
from hwquant.onnx_function import ELEMENTWISE, settle, waits
from hwquant.onnx_graph import NO_PADS, Conversion, OnnxGraph, OnnxNode, View, axes_of, regroup


def convert(graph: OnnxGraph, name: str, sha256: str) -> FloatGraph:
    """Turn operators into nodes, folding constants into the layers before them.

    Raises
    ------
    BadInput
        If a weight is NaN or infinite, or its shape does not fit.
    UnsupportedModel
        If an operator has no place in a ``FloatGraph``; names the node and the reason.
    """
    for node in graph.nodes:
        if node.op not in (*_OPERATORS, *ELEMENTWISE, *_FINAL):
            known = ", ".join(dict.fromkeys((*_OPERATORS, *ELEMENTWISE)))
            node.refuse(
                f"operator {node.op} is not supported; hwquant handles {known}; at the output also "
                f"{', '.join(_FINAL)}"
            )
    layout = _layout(graph)
    state = Conversion(graph, layout)
    for node in graph.nodes:
        _convert(state, node)
    settle(state, graph.output)
    if not state.nodes:
        raise UnsupportedModel(f"{name}: the network has no layers")
    view = state.whole(graph.nodes[-1], state.views[graph.output])
    read = {source for made in state.nodes.values() for source in sources(made)}
    for unread in state.taken_apart - read - {view.source}:
        del state.nodes[unread], state.shapes[unread]
    letters = "".join(view.axes)
    if list(letters) != sorted(letters):
        state.notes.append(f"the output is in C, H, W order; the network's own is {letters}")
    return FloatGraph(
        name=name,
        sha256=sha256,
        layout=layout,
        nodes=tuple(state.nodes.values()),
        shapes=state.shapes,
        output=view.source,
        notes=tuple(state.notes),
    )


def _convert(state: Conversion, node: OnnxNode) -> None:
    is_final = node.op in _FINAL and node.outputs[0] == state.graph.output
    if not is_final and waits(state, node):
        return
    for tensor in node.inputs:
        settle(state, tensor)
    if is_final:
        _final(state, node)
    elif node.op in _OPERATORS:
        _OPERATORS[node.op](state, node)
    elif node.op in _FINAL:
        node.refuse(f"{node.op} inside the network; hwquant drops it at the output, nowhere else")
    else:
        _refuse_operands(state, node)


def _layout(graph: OnnxGraph) -> Layout:
    """Tell the order of the input's axes from the first operators, which may move them."""
    shape = graph.shapes[graph.input]
    rank = len(shape)
    if rank == 2:
        return "NF"
    first = next((node for node in graph.nodes if graph.input in node.inputs), None)
    if first is None:
        return "NCHW" if rank == 4 else "NCW"
    moved = graph.shapes.get(first.outputs[0], ())
    match first.op:
        case "Transpose":
            channels_last = first.ints.get("perm") in ((0, 3, 1, 2), (0, 2, 1))
        case "Reshape" | "Unsqueeze" if rank == 3 and len(moved) == 4:
            second = next((node for node in graph.nodes if first.outputs[0] in node.inputs), first)
            channels_last = second.ints.get("perm") == (0, 3, 1, 2)
        case "Reshape" if len(moved) == 4:
            channels_last = moved == (1, shape[3], shape[1], shape[2]) != shape
        case "Reshape" | "Flatten":
            channels_last = shape[-1] <= 4 < shape[1]  # images have few channels; no more is known
        case _:
            channels_last = False
    if rank == 3:
        return "NWC" if channels_last else "NCW"
    return "NHWC" if channels_last else "NCHW"


def _two_operands(state: Conversion, node: OnnxNode) -> None:
    constant = next((i for i in (0, 1) if node.inputs[i] in state.graph.constants), None)
    if constant is not None:
        arithmetic(state, node, constant)
        return
    left, right = state.view(node, 0), state.view(node, 1)
    shape, other = state.shapes[left.source], state.shapes[right.source]
    if node.op == "Add" and left.axes == right.axes and shape == other:
        state.emit(FloatAdd(node.name, (left.source, right.source)), node, shape, left.axes)
    elif node.op == "Mul" and _is_gate(state, left, right):
        made = FloatMultiply(node.name, left.source, right.source)
        state.emit(made, node, shape, left.axes)
    elif node.op == "Mul" and _is_gate(state, right, left):
        made = FloatMultiply(node.name, right.source, left.source)
        state.emit(made, node, other, right.axes)
    else:
        _refuse_operands(state, node)


def _is_gate(state: Conversion, view: View, gate: View) -> bool:
    """Whether one tensor has one value for each channel of the other."""
    kept = tuple("C" if group == "C" else "" for group in view.axes)
    channels = state.shapes[view.source][0]
    return state.shapes[gate.source] == (channels, 1, 1) and gate.axes == kept


def _refuse_operands(state: Conversion, node: OnnxNode) -> None:
    constants = state.graph.constants
    shapes = " and ".join(
        str(constants[tensor].shape if tensor in constants else state.shape(node, tensor))
        for tensor in node.inputs
    )
    node.refuse(
        f"{node.op} of tensors of shape {shapes}; hwquant handles Add of equal shapes and layouts, "
        "Mul by one value a channel (N, C, 1, 1), and activation functions of one tensor"
    )


def _concat(state: Conversion, node: OnnxNode) -> None:
    """Convert Concat along the channels, or of constant tokens and others."""
    if any(tensor in state.graph.constants for tensor in node.inputs):
        attention.class_tokens(state, node)
        return
    views = [state.view(node, index) for index in range(len(node.inputs))]
    seen = [state.shape(node, tensor) for tensor in node.inputs]
    axis = node.integer("axis", 1) % len(seen[0])
    pairs = [(view, state.shapes[view.source]) for view in views]
    _, (_, height, width) = pairs[0]
    merged = (sum(shape[0] for _, shape in pairs), height, width)
    rest = {(*view.axes[:axis], *view.axes[axis + 1 :], shape[1:]) for view, shape in pairs}
    is_channels = all(view.axes[axis] == ("C" if shape[0] > 1 else "") for view, shape in pairs)
    if not axis or not is_channels or len(rest) > 1:
        node.refuse(
            f"Concat along axis {axis} of tensors of shape {', '.join(map(str, seen))}; hwquant "
            "handles the channels of images and vectors"
        )
    axes = (*views[0].axes[:axis], "C" if merged[0] > 1 else "", *views[0].axes[axis + 1 :])
    made = FloatConcat(node.name, tuple(view.source for view in views))
    state.emit(made, node, merged, axes)


def _pool(state: Conversion, node: OnnxNode) -> None:
    """Convert MaxPool and AveragePool, together with a Pad before them if that changes nothing."""
    view, (channels, height, width) = state.image_of(node, state.padded_view(node))
    window = node.ints["kernel_shape"]
    kernel = (1, window[0]) if len(window) == 1 else (window[0], window[1])
    top, left, bottom, right = view.pads
    padded = (channels, height + top + bottom, width + left + right)
    stride, own, size = window_of(node, kernel, padded)
    pads = (own[0] + top, own[1] + left, own[2] + bottom, own[3] + right)
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
        weight = np.full((channels, 1, *kernel), 1 / math.prod(kernel))
        bias = np.zeros(channels)
        made = FloatConv(node.name, view.source, weight, bias, stride, pads, None, channels)
    state.emit_image(made, node, (channels, *size))


def _is_positive(node: FloatNode | None) -> bool:
    """Whether a padded zero never wins a maximum: the node's outputs are at least 0."""
    return isinstance(node, FloatActivation) and bounds(node.function)[0] >= 0


def _matrix_product(state: Conversion, node: OnnxNode) -> None:
    if node.inputs[1] in state.graph.constants:
        fully_connected(state, node)
    else:
        attention.matrix_product(state, node)


def _global_pool(state: Conversion, node: OnnxNode) -> None:
    view, (channels, height, width) = state.image(node)
    made = _whole_pool(node, view.source, (height, width))
    state.emit_image(made, node, (channels, 1, 1))


def _reduced(state: Conversion, node: OnnxNode) -> None:
    view = state.view(node)
    shape = state.shapes[view.source]
    rank = len(view.axes)
    reduced = {axis % rank for axis in state.integers(node, "axes", 1) or range(rank)}
    letters = sorted("".join(view.axes[axis] for axis in reduced))
    if letters != [letter for letter in axes_of("HW", shape) if letter]:
        node.refuse(
            f"{node.op} over axes {sorted(reduced)} of shape {state.shape(node, node.inputs[0])}; "
            "hwquant handles height and width together"
        )
    kept = [(axis, "" if axis in reduced else group) for axis, group in enumerate(view.axes)]
    axes = tuple(
        group for axis, group in kept if node.integer("keepdims", 1) or axis not in reduced
    )
    state.emit(_whole_pool(node, view.source, shape[1:]), node, (shape[0], 1, 1), axes)


def _whole_pool(node: OnnxNode, source: str, window: Pair) -> FloatMaxPool | FloatAveragePool:
    if node.op in ("GlobalMaxPool", "ReduceMax"):
        return FloatMaxPool(node.name, source, window, window, pads=NO_PADS)
    return FloatAveragePool(node.name, source, window, window)


def _slice(state: Conversion, node: OnnxNode) -> None:
    """Convert a Slice that takes every n-th row and column of the whole image."""
    view = state.view(node)
    sizes = state.shape(node, node.inputs[0])
    starts = state.integers(node, "starts", 1) or ()
    ends = state.integers(node, "ends", 2) or ()
    axes = state.integers(node, "axes", 3) or tuple(range(len(starts)))
    steps = state.integers(node, "steps", 4) or (1,) * len(starts)
    strides = {"H": 1, "W": 1}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size, group = sizes[axis], view.axes[axis]
        whole = start in (0, -size) and end >= size and step > 0
        if not whole or (step > 1 and group not in ("H", "W", "")):
            node.refuse(
                f"Slice {start}:{end}:{step} of axis {axis} of shape {sizes}; hwquant handles "
                "steps over the whole height and width"
            )
        if step > 1 and group:
            strides[group] = step
    if strides["H"] != strides["W"]:
        node.refuse(f"Slice with steps {strides}; hwquant handles equal ones")
    stride = strides["H"]
    if stride == 1:
        state.show(node, view, view.axes)
        return
    channels, height, width = state.shapes[view.source]
    shape = (channels, -(-height // stride), -(-width // stride))
    made = FloatShortcut(node.name, view.source, (stride, stride), channels, channel_offset=0)
    state.emit(made, node, shape, axes_of(view.axes, shape))


def _pad(state: Conversion, node: OnnxNode) -> None:
    """Convert a Pad of zero channels, or of zeros around an image, which wait for a Conv."""
    view, (channels, height, width) = state.image(node)
    rank = len(view.axes)
    pads = state.integers(node, "pads", 1) or ()
    axes = state.integers(node, "axes", 3) or tuple(range(rank))
    before, after = [0] * rank, [0] * rank
    for index, axis in enumerate(axes):
        before[axis], after[axis] = pads[index], pads[index + len(axes)]
    value = state.number(node, "value", 2, 0.0)
    mode = node.texts.get("mode", "constant")
    around = any((*before[2:], *after[2:]))
    is_other = before[0] or after[0] or (around and (before[1] or after[1]))
    if mode != "constant" or value or is_other or min(*before, *after) < 0:
        node.refuse(
            f"Pad of {before} before and {after} after, mode {mode}, value {value:g}; hwquant "
            "handles zeros among the channels, or around an image before a Conv"
        )
    if around:
        if node.outputs[0] == state.graph.output:
            node.refuse("Pad of the output; hwquant handles a Pad before a Conv")
        top, left, bottom, right = (
            (before[2], before[3], after[2], after[3]) if rank == 4 else (0, before[2], 0, after[2])
        )
        state.show(node, replace(view, pads=(top, left, bottom, right)), view.axes)
        return
    shape = (before[1] + channels + after[1], height, width)
    source, stride, offset = view.source, (1, 1), before[1]
    sliced = state.nodes.get(source)
    if isinstance(sliced, FloatShortcut) and not view.shared:
        source, stride, offset = sliced.source, sliced.stride, sliced.channel_offset + before[1]
        del state.nodes[sliced.name], state.shapes[sliced.name]
    made = FloatShortcut(node.name, source, stride, shape[0], offset)
    state.emit_image(made, node, shape)


def _reshape(state: Conversion, node: OnnxNode) -> None:
    view = state.parts_view(node)
    before, after = state.shape(node, node.inputs[0]), state.shape(node, node.outputs[0])
    found = regroup(view, state.shapes[view.source], after)
    if found is None:
        node.refuse(
            f"{node.op} from {before} to {after} takes channels, height or width apart; hwquant "
            "handles flattening, and heads of tokens"
        )
    axes, split = found
    state.show(node, replace(view, split=split), axes)


def _transpose(state: Conversion, node: OnnxNode) -> None:
    view = state.parts_view(node)
    order = node.ints.get("perm", tuple(reversed(range(len(view.axes)))))
    state.show(node, view, tuple(view.axes[axis] for axis in order))


def _identity(state: Conversion, node: OnnxNode) -> None:
    if node.has_input(2):
        training = state.graph.constants.get(node.inputs[2])
        if training is None or training.any():
            node.refuse("Dropout in training mode; export the network for inference")
    view = state.parts_view(node)
    state.show(node, view, view.axes)


def _final(state: Conversion, node: OnnxNode) -> None:
    """Drop a monotone function of the output."""
    view = state.view(node)
    axis = node.integer("axis", -1)
    if node.op != "Sigmoid" and view.axes[axis] != "C":
        node.refuse(f"{node.op} over axis {axis}, which is not the channels'")
    state.notes.append(
        f"the final {node.op} ({node.label}) was dropped; it keeps the outputs' order"
    )
    state.show(node, view, view.axes)


_FINAL = ("Softmax", "LogSoftmax", "Sigmoid")
_OPERATORS: dict[str, Callable[[Conversion, OnnxNode], None]] = {
    "Conv": convolution,
    "Gemm": fully_connected,
    "MatMul": _matrix_product,
    "BatchNormalization": batch_norm,
    "Add": _two_operands,
    "Sub": _two_operands,
    "Mul": _two_operands,
    "Div": _two_operands,
    "Concat": _concat,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalMaxPool": _global_pool,
    "GlobalAveragePool": _global_pool,
    "ReduceMean": _reduced,
    "ReduceMax": _reduced,
    "Slice": _slice,
    "Pad": _pad,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose,
    "Split": attention.split,
    "Gather": attention.gather,
    "LayerNormalization": attention.layer_norm,
    "Softmax": attention.softmax,
    "Identity": _identity,
    "Dropout": _identity,
}
