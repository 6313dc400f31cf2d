"""ONNX operators with constants: convolutions, and what folds into the one before, in float64."""

from dataclasses import replace

import numpy as np

from hwquant.errors import BadInput
from hwquant.ir import INPUT, FloatArray, FloatConv, Moments, Pads, Pair
from hwquant.onnx_graph import Conversion, OnnxNode, Shape, View, to_chw

CAUSE = "hwquant folds constants into the layer right before"


def convolution(state: Conversion, node: OnnxNode) -> None:
    """Convert Conv."""
    view, shape = state.image(node)
    if (group := node.integer("group", 1)) != 1:
        node.refuse(f"Conv with group={group}; hwquant handles group=1")
    weight = state.weights(node, 1)
    count, channels, *window = weight.shape
    if channels != shape[0] or len(window) != 2:
        raise BadInput(f"{node.label}: weight {weight.shape} on an image (C, H, W) = {shape}")
    bias = state.weights(node, 2, (count,)) if node.has_input(2) else np.zeros(count)
    stride, pads, size = window_of(node, (window[0], window[1]), shape)
    made = FloatConv(node.name, view.source, weight, bias, stride, pads, moments=None)
    state.emit_image(made, node, (count, *size))


def fully_connected(state: Conversion, node: OnnxNode) -> None:
    """Convert Gemm and MatMul into a convolution whose kernel is as large as the image."""
    view = state.view(node)
    weight = state.weights(node, 1)
    seen = state.shape(node, node.inputs[0])
    if node.integer("transA", 0):
        node.refuse(f"{node.op} with transA=1; hwquant handles transA=0")
    if len(view.axes) != 2 or view.axes[0] or weight.ndim != 2:
        node.refuse(
            f"{node.op} of shapes {seen} and {weight.shape}; hwquant handles (N, F) and (F, M)"
        )
    weight = weight if node.integer("transB", 0) else weight.T
    count, inputs = weight.shape
    bias = state.weights(node, 2) if node.has_input(2) else np.zeros(1)
    if inputs != seen[1] or bias.size not in (1, count):
        raise BadInput(
            f"{node.label}: weight {weight.T.shape} and bias {bias.shape} on a vector {seen}"
        )
    kernel = to_chw(weight, view.axes[1], state.shapes[view.source])
    made = FloatConv(
        node.name,
        view.source,
        weight=node.floats.get("alpha", 1.0) * kernel,
        bias=node.floats.get("beta", 1.0) * np.broadcast_to(bias.reshape(-1), count),
        stride=(1, 1),
        pads=(0, 0, 0, 0),
        moments=None,
    )
    state.emit(made, node, (count, 1, 1), ("", "C" if count > 1 else ""))


def batch_norm(state: Conversion, node: OnnxNode) -> None:
    """Fold BatchNormalization; what it makes of its input's moments is known: beta and gamma."""
    view = state.view(node)
    channels = state.shapes[view.source][0]
    if view.axes[1] != ("C" if channels > 1 else ""):
        node.refuse("BatchNormalization over an axis that is not the channels'")
    if node.integer("training_mode", 0):
        node.refuse("BatchNormalization in training mode; export the network for inference")
    gamma, beta, mean, variance = (state.weights(node, i, (channels,)) for i in range(1, 5))
    variance = variance + node.floats.get("epsilon", 1e-5)
    if np.any(variance <= 0):
        node.refuse(f"BatchNormalization with variance + epsilon = {variance.min():g}")
    scale = gamma / np.sqrt(variance)
    _fold(state, node, view, scale, beta - mean * scale, Moments(beta, np.abs(gamma)))


def arithmetic(state: Conversion, node: OnnxNode, constant: int) -> None:
    """Fold Add, Sub, Mul or Div of a tensor and the constant operand ``constant``."""
    if constant == 0 and node.op in ("Sub", "Div"):
        node.refuse(f"{node.op} of a constant and a tensor; hwquant handles the other order")
    view = state.view(node, 1 - constant)
    values = _per_channel(state, node, view, constant)
    one, zero = np.ones_like(values), np.zeros_like(values)
    match node.op:
        case "Add":
            scale, shift = one, values
        case "Sub":
            scale, shift = one, -values
        case "Mul":
            scale, shift = values, zero
        case _:
            if not np.all(values):
                node.refuse(f"Div by zero in {node.inputs[constant]!r}")
            scale, shift = 1 / values, zero
    _fold(state, node, view, scale, shift, None)


def _per_channel(state: Conversion, node: OnnxNode, view: View, constant: int) -> FloatArray:
    """Return a constant operand as ``float[C]`` of ``view.source``."""
    values = state.weights(node, constant)
    shape = state.shape(node, node.inputs[1 - constant])
    if state.shape(node, node.outputs[0]) != shape:
        node.refuse(f"{node.op} of shape {shape} and a constant of shape {values.shape}")
    flat = np.broadcast_to(values, shape).reshape(-1)
    image = to_chw(flat, "".join(view.axes), state.shapes[view.source])
    if np.any(image != image[:, :1, :1]):
        node.refuse(f"{node.op} of a constant that differs within a channel; {CAUSE}")
    return image[:, 0, 0]


def _fold(
    state: Conversion,
    node: OnnxNode,
    view: View,
    scale: FloatArray,
    shift: FloatArray,
    moments: Moments | None,
) -> None:
    """Fold ``x * scale + shift`` into the layer that computes ``x``."""
    layer = state.nodes.get(view.source)
    if view.source == INPUT:
        node.refuse(
            f"{node.op} of the network's input and a constant; leave it out of the network and "
            "give the mean and std of the input when quantizing"
        )
    if not isinstance(layer, FloatConv):
        node.refuse(f"{node.op} after {view.source!r}, which is no Conv or Gemm; {CAUSE}")
    if view.shared:
        node.refuse(f"{node.op} after {layer.name!r}, whose output is used elsewhere too; {CAUSE}")
    if moments is None and layer.moments is not None:
        before = layer.moments
        moments = Moments(before.mean * scale + shift, before.std * np.abs(scale))
    state.nodes[layer.name] = replace(
        layer,
        weight=layer.weight * scale[:, None, None, None],
        bias=layer.bias * scale + shift,
        moments=moments,
    )
    state.show(node, view, view.axes)


def window_of(node: OnnxNode, kernel: Pair, shape: Shape) -> tuple[Pair, Pads, Pair]:
    """Return stride, pads and output ``(H, W)`` of a node that moves a window over an image."""
    dilations = node.ints.get("dilations", (1, 1))
    if any(dilation > 1 and extent > 1 for dilation, extent in zip(dilations, kernel, strict=True)):
        node.refuse(f"{node.op} with dilations={dilations}; hwquant handles (1, 1)")
    stride = node.ints.get("strides", (1, 1))
    given = node.ints.get("pads", (0, 0, 0, 0))
    auto = node.texts.get("auto_pad", "NOTSET")
    before, after, output = [0, 0], [0, 0], [0, 0]
    for axis, extent in enumerate(shape[1:]):
        match auto:
            case "SAME_UPPER" | "SAME_LOWER":
                total = (-(-extent // stride[axis]) - 1) * stride[axis] + kernel[axis] - extent
                if total < -2:  # ONNX Runtime 1.32 shifts such windows, the ONNX reference does not
                    node.refuse(f"{node.op} with auto_pad={auto} and stride {stride} > {kernel}")
                less, more = max(total, 0) // 2, -(-max(total, 0) // 2)
                ends = (less, more) if auto == "SAME_UPPER" else (more, less)
            case "VALID":
                ends = (0, 0)
            case _:
                ends = (given[axis], given[axis + 2])
        before[axis], after[axis] = ends
        travel = extent + sum(ends) - kernel[axis]
        if min(ends) < 0 or travel < 0:
            node.refuse(f"{node.op} with window {kernel} and pads {given} on an image {shape[1:]}")
        if node.integer("ceil_mode", 0) and travel % stride[axis]:
            node.refuse(
                f"{node.op} with ceil_mode=1, whose last window hangs over the image {shape[1:]}"
            )
        output[axis] = travel // stride[axis] + 1
    pads = (before[0], before[1], after[0], after[1])
    return (stride[0], stride[1]), pads, (output[0], output[1])
