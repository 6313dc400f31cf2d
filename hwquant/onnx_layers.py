"""``convert`` makes a ``FloatGraph`` of a simplified ONNX network, one operator at a time."""

import math
from collections.abc import Callable

from hwquant.errors import UnsupportedModel
from hwquant.ir import (
    FloatAdd,
    FloatAveragePool,
    FloatGraph,
    FloatMaxPool,
    FloatRelu,
    FloatShortcut,
)
from hwquant.onnx_fold import arithmetic, batch_norm, convolution, fully_connected, window_of
from hwquant.onnx_graph import Conversion, Layout, OnnxGraph, OnnxNode, axes_of, regroup

_FLOAT_MAX = 3.4e38  # what exporters write where they mean "no maximum"


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
        if node.op not in _OPERATORS:
            known = ", ".join(_OPERATORS)
            node.refuse(
                f"operator {node.op} is not supported; hwquant handles {known} (the last three at "
                "the output)"
            )
    layout = _layout(graph)
    state = Conversion(graph, layout)
    for node in graph.nodes:
        _OPERATORS[node.op](state, node)
    if not state.nodes:
        raise UnsupportedModel(f"{name}: the network has no layers")
    view = state.views[graph.output]
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


def _layout(graph: OnnxGraph) -> Layout:
    """Tell the order of the input's axes from the first operator, which may move them."""
    shape = graph.shapes[graph.input]
    if len(shape) == 2:
        return "NF"
    first = next((node for node in graph.nodes if graph.input in node.inputs), None)
    moved = graph.shapes.get(first.outputs[0], ()) if first else ()
    match first.op if first else "":
        case "Transpose":
            channels_last = first is not None and first.ints.get("perm") == (0, 3, 1, 2)
        case "Reshape" if len(moved) == 4:
            channels_last = moved == (1, shape[3], shape[1], shape[2]) != shape
        case "Reshape" | "Flatten":
            channels_last = shape[3] <= 4 < shape[1]  # images have few channels; nothing else tells
        case _:
            channels_last = False
    return "NHWC" if channels_last else "NCHW"


def _two_operands(state: Conversion, node: OnnxNode) -> None:
    constant = next((i for i in (0, 1) if node.inputs[i] in state.graph.constants), None)
    if constant is not None:
        arithmetic(state, node, constant)
        return
    shapes = " and ".join(str(state.shape(node, tensor)) for tensor in node.inputs)
    if node.op != "Add":
        node.refuse(f"{node.op} of two tensors of shape {shapes}; hwquant handles Add of two")
    left, right = state.view(node, 0), state.view(node, 1)
    shape = state.shapes[left.source]
    if left.axes != right.axes or shape != state.shapes[right.source]:
        node.refuse(f"Add of tensors of shape {shapes}; hwquant handles equal shapes and layouts")
    state.emit(FloatAdd(node.name, (left.source, right.source)), node, shape, left.axes)


def _relu(state: Conversion, node: OnnxNode) -> None:
    view = state.view(node)
    low, high = 0.0, math.inf
    if node.op == "Clip":
        low = state.number(node, "min", 1, -math.inf)
        high = state.number(node, "max", 2, math.inf)
        high = math.inf if high >= _FLOAT_MAX else high
    if low != 0 or high not in (6, math.inf):
        node.refuse(f"Clip to {low:g}..{high:g}; hwquant handles 0..6 and 0..inf")
    made = FloatRelu(node.name, view.source, None if high == math.inf else high)
    state.emit(made, node, state.shapes[view.source], view.axes)


def _pool(state: Conversion, node: OnnxNode) -> None:
    view, shape = state.image(node)
    kernel = (node.ints["kernel_shape"][0], node.ints["kernel_shape"][1])
    stride, pads, size = window_of(node, kernel, shape)
    if node.op == "MaxPool":
        if any(pad >= kernel[side % 2] for side, pad in enumerate(pads)):
            node.refuse(f"MaxPool with pads {pads} as large as its window {kernel}")
        made = FloatMaxPool(node.name, view.source, kernel, stride, pads)
    else:
        if any(pads):
            node.refuse(f"AveragePool with pads {pads}; hwquant handles it without padding")
        made = FloatAveragePool(node.name, view.source, kernel, stride)
    state.emit_image(made, node, (shape[0], *size))


def _global_pool(state: Conversion, node: OnnxNode) -> None:
    view, (channels, height, width) = state.image(node)
    window = (height, width)
    if node.op == "GlobalMaxPool":
        made = FloatMaxPool(node.name, view.source, window, window, pads=(0, 0, 0, 0))
    else:
        made = FloatAveragePool(node.name, view.source, window, window)
    state.emit_image(made, node, (channels, 1, 1))


def _reduce_mean(state: Conversion, node: OnnxNode) -> None:
    view = state.view(node)
    shape = state.shapes[view.source]
    rank = len(view.axes)
    reduced = {axis % rank for axis in state.integers(node, "axes", 1) or range(rank)}
    letters = sorted("".join(view.axes[axis] for axis in reduced))
    if letters != [letter for letter in axes_of("HW", shape) if letter]:
        node.refuse(
            f"ReduceMean over axes {sorted(reduced)} of shape {state.shape(node, node.inputs[0])}; "
            "hwquant handles the mean over height and width"
        )
    kept = [(axis, "" if axis in reduced else group) for axis, group in enumerate(view.axes)]
    axes = tuple(
        group for axis, group in kept if node.integer("keepdims", 1) or axis not in reduced
    )
    made = FloatAveragePool(node.name, view.source, shape[1:], shape[1:])
    state.emit(made, node, (shape[0], 1, 1), axes)


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
    """Convert a Pad of zero channels, together with the Slice before it if there is one."""
    view, (channels, height, width) = state.image(node)
    pads = state.integers(node, "pads", 1) or ()
    axes = state.integers(node, "axes", 3) or tuple(range(4))
    before, after = [0] * 4, [0] * 4
    for index, axis in enumerate(axes):
        before[axis], after[axis] = pads[index], pads[index + len(axes)]
    value = state.number(node, "value", 2, 0.0)
    mode = node.texts.get("mode", "constant")
    elsewhere = any(before[axis] or after[axis] for axis in (0, 2, 3))
    if mode != "constant" or value or elsewhere or min(before[1], after[1]) < 0:
        node.refuse(
            f"Pad of {before} before and {after} after, mode {mode}, value {value:g}; hwquant "
            "handles zeros among the channels"
        )
    shape = (before[1] + channels + after[1], height, width)
    source, stride, offset = view.source, (1, 1), before[1]
    sliced = state.nodes.get(source)
    if isinstance(sliced, FloatShortcut) and not view.shared:
        source, stride, offset = sliced.source, sliced.stride, sliced.channel_offset + before[1]
        del state.nodes[sliced.name], state.shapes[sliced.name]
    made = FloatShortcut(node.name, source, stride, shape[0], offset)
    state.emit_image(made, node, shape)


def _reshape(state: Conversion, node: OnnxNode) -> None:
    view = state.view(node)
    before, after = state.shape(node, node.inputs[0]), state.shape(node, node.outputs[0])
    axes = regroup("".join(view.axes), state.shapes[view.source], after)
    if axes is None:
        node.refuse(
            f"{node.op} from {before} to {after} takes channels, height or width apart; hwquant "
            "handles flattening"
        )
    state.show(node, view, axes)


def _transpose(state: Conversion, node: OnnxNode) -> None:
    view = state.view(node)
    order = node.ints.get("perm", tuple(reversed(range(len(view.axes)))))
    state.show(node, view, tuple(view.axes[axis] for axis in order))


def _identity(state: Conversion, node: OnnxNode) -> None:
    if node.has_input(2):
        training = state.graph.constants.get(node.inputs[2])
        if training is None or training.any():
            node.refuse("Dropout in training mode; export the network for inference")
    view = state.view(node)
    state.show(node, view, view.axes)


def _final(state: Conversion, node: OnnxNode) -> None:
    """Drop a monotone function of the output."""
    view = state.view(node)
    if node.outputs[0] != state.graph.output:
        node.refuse(
            f"{node.op} inside the network; hwquant drops it at the output and nowhere else"
        )
    axis = node.integer("axis", -1)
    if node.op != "Sigmoid" and view.axes[axis] != "C":
        node.refuse(f"{node.op} over axis {axis}, which is not the channels'")
    state.notes.append(
        f"the final {node.op} ({node.label}) was dropped; it keeps the outputs' order"
    )
    state.show(node, view, view.axes)


_OPERATORS: dict[str, Callable[[Conversion, OnnxNode], None]] = {
    "Conv": convolution,
    "Gemm": fully_connected,
    "MatMul": fully_connected,
    "BatchNormalization": batch_norm,
    "Add": _two_operands,
    "Sub": _two_operands,
    "Mul": _two_operands,
    "Div": _two_operands,
    "Relu": _relu,
    "Clip": _relu,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalMaxPool": _global_pool,
    "GlobalAveragePool": _global_pool,
    "ReduceMean": _reduce_mean,
    "Slice": _slice,
    "Pad": _pad,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose,
    "Identity": _identity,
    "Dropout": _identity,
    "Softmax": _final,
    "LogSoftmax": _final,
    "Sigmoid": _final,
}
