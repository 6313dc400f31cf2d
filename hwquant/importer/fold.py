"""ONNX operators with constants: convolutions, and what folds into the one before, in float64.

What cannot be folded into a convolution right before becomes one of its own, depthwise and 1x1.
"""

from dataclasses import replace

import numpy as np

from hwquant.errors import BadInput
from hwquant.float_graph import FloatConv, FloatEmbedding, FloatMatMul, Moments
from hwquant.importer.graph import NO_PADS, Conversion, OnnxNode, Shape, View, axes_of, to_chw
from hwquant.importer.pixels import read_through
from hwquant.ir import FloatArray, Pads, Pair


def convolution(state: Conversion, node: OnnxNode) -> None:
    """Convert Conv, together with the Pad before it if there is one."""
    view, shape = state.image_of(node, state.padded_view(node))
    rank = len(view.axes)
    groups = node.integer("group", 1)
    weight = state.weights(node, 1)
    count, channels, *_ = weight.shape
    if weight.ndim != rank or channels * groups != shape[0] or count % groups:
        raise BadInput(
            f"{node.label}: weight {weight.shape} on an image (C, H, W) = {shape}, group={groups}"
        )
    if rank == 3:
        weight = weight[:, :, None]
    weight = _dilated(state, node, weight)
    bias = state.weights(node, 2, (count,)) if node.has_input(2) else np.zeros(count)
    window = (weight.shape[2], weight.shape[3])
    stride, _, pads, size = window_of(node, window, shape, view.pads)
    made = FloatConv(node.name, view.source, weight, bias, stride, pads, None, groups)
    state.emit_image(read_through(state, node, made, size), node, (count, *size))


def _dilated(state: Conversion, node: OnnxNode, weight: FloatArray) -> FloatArray:
    """Put the zeros that a dilated kernel jumps over between its weights."""
    down, right = _pair(node, "dilations", 1)
    count, channels, height, width = weight.shape
    size = (count, channels, (height - 1) * down + 1, (width - 1) * right + 1)
    if size == weight.shape:
        return weight
    state.notes.append(
        f"{node.label}: dilations=({down}, {right}) became a kernel of {size[2]} x {size[3]}, "
        "whose zeros take cycles like other weights"
    )
    made = np.zeros(size)
    made[:, :, ::down, ::right] = weight
    return made


def fully_connected(state: Conversion, node: OnnxNode) -> None:
    """Convert Gemm and MatMul into a convolution whose kernel is as large as the image.

    Where the last axis of several is the channels', the others are tokens, and the kernel is 1x1.
    """
    view = state.view(node)
    weight = state.weights(node, 1)
    seen = state.shape(node, node.inputs[0])
    if node.integer("transA", 0):
        node.refuse(f"{node.op} with transA=1; hwquant handles transA=0")
    tokens = axes_of("HW", state.shapes[view.source])
    is_tokens = view.axes[-1] == "C" and "".join(view.axes[:-1]) == "".join(tokens) != ""
    if weight.ndim != 2 or not (is_tokens or (len(view.axes) == 2 and not view.axes[0])):
        node.refuse(
            f"{node.op} of shapes {seen} and {weight.shape}; hwquant handles (N, F), and tokens "
            "(N, T, F), times (F, M)"
        )
    weight = weight if node.integer("transB", 0) else weight.T
    count, inputs = weight.shape
    bias = state.weights(node, 2) if node.has_input(2) else np.zeros(1)
    if inputs != seen[-1] or bias.size not in (1, count):
        raise BadInput(
            f"{node.label}: weight {weight.T.shape} and bias {bias.shape} on a vector {seen}"
        )
    _, height, width = shape = state.shapes[view.source]
    kernel = to_chw(weight, view.axes[-1], (inputs, 1, 1) if is_tokens else shape)
    made = FloatConv(
        node.name,
        view.source,
        weight=node.floats.get("alpha", 1.0) * kernel,
        bias=node.floats.get("beta", 1.0) * np.broadcast_to(bias.reshape(-1), count),
        stride=(1, 1),
        pads=NO_PADS,
        moments=None,
    )
    axes = (*view.axes[:-1], "C" if count > 1 else "")
    state.emit(made, node, (count, height, width) if is_tokens else (count, 1, 1), axes)


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
    fold(state, node, view, scale, beta - mean * scale, Moments(beta, np.abs(gamma)))


def arithmetic(state: Conversion, node: OnnxNode, constant: int) -> None:
    """Fold Add, Sub, Mul or Div of a tensor and the constant operand ``constant``."""
    if constant == 0 and node.op == "Div":
        node.refuse("Div of a constant by a tensor; hwquant handles the other order")
    view = state.view(node, 1 - constant)
    image = _image_of(state, node, view, constant)
    if (node.op == "Add" or (node.op == "Sub" and constant)) and _differs(image):
        _embed(state, node, view, image if node.op == "Add" else -image)
        return
    values = _per_channel(node, image)
    one, zero = np.ones_like(values), np.zeros_like(values)
    match node.op:
        case "Add":
            scale, shift = one, values
        case "Sub":
            scale, shift = (one, -values) if constant else (-one, values)
        case "Mul":
            scale, shift = values, zero
        case _:
            if not np.all(values):
                node.refuse(f"Div by zero in {node.inputs[constant]!r}")
            scale, shift = 1 / values, zero
    fold(state, node, view, scale, shift, None)


def _image_of(state: Conversion, node: OnnxNode, view: View, constant: int) -> FloatArray:
    """Return a constant operand in the shape of ``view.source``, ``float[C, H, W]``."""
    values = state.weights(node, constant)
    shape = state.shape(node, node.inputs[1 - constant])
    if np.broadcast_shapes(values.shape, shape) != shape:
        node.refuse(f"{node.op} of shape {shape} and a constant of shape {values.shape}")
    flat = np.broadcast_to(values, shape).reshape(-1)
    return to_chw(flat, "".join(view.axes), state.shapes[view.source])


def _differs(image: FloatArray) -> bool:
    return bool(np.any(image != image[:, :1, :1]))


def _per_channel(node: OnnxNode, image: FloatArray) -> FloatArray:
    """Return a constant operand as ``float[C]``."""
    if _differs(image):
        node.refuse(
            f"{node.op} of a constant that differs within a channel; hwquant handles one number a "
            "channel"
        )
    return image[:, 0, 0]


def _embed(state: Conversion, node: OnnxNode, view: View, image: FloatArray) -> None:
    """Add a constant that differs from pixel to pixel."""
    layer = state.nodes.get(view.source)
    if isinstance(layer, FloatEmbedding) and not view.shared:
        state.nodes[layer.name] = replace(layer, constant=layer.constant + image)
        state.show(node, view, view.axes)
        return
    made = FloatEmbedding(node.name, view.source, image)
    state.emit(made, node, state.shapes[view.source], view.axes)


def fold(
    state: Conversion,
    node: OnnxNode,
    view: View,
    scale: FloatArray,
    shift: FloatArray,
    moments: Moments | None,
) -> None:
    """Fold ``x * scale + shift`` into the convolution that computes ``x`` for this node alone."""
    layer = state.nodes.get(view.source)
    is_uniform = not shift.any() and np.all(scale == scale[0])
    if isinstance(layer, FloatMatMul) and not view.shared and is_uniform:
        state.nodes[layer.name] = replace(layer, scale=layer.scale * float(scale[0]))
        state.show(node, view, view.axes)
        return
    if isinstance(layer, FloatConv) and moments is None and layer.moments is not None:
        before = layer.moments
        moments = Moments(before.mean * scale + shift, before.std * np.abs(scale))
    if not isinstance(layer, FloatConv) or view.shared:
        made = depthwise(node.name, view.source, scale, shift, moments)
        state.emit(made, node, state.shapes[view.source], view.axes, view.split)
        return
    state.nodes[layer.name] = replace(
        layer,
        weight=layer.weight * scale[:, None, None, None],
        bias=layer.bias * scale + shift,
        moments=moments,
    )
    state.choices.pop(layer.name, None)
    state.show(node, view, view.axes)


def depthwise(
    name: str,
    source: str,
    scale: FloatArray,
    shift: FloatArray,
    moments: Moments | None = None,
) -> FloatConv:
    """Make a convolution of ``x * scale + shift`` per channel."""
    weight = scale[:, None, None, None]
    return FloatConv(name, source, weight, shift, (1, 1), NO_PADS, moments, groups=len(scale))


def window_of(
    node: OnnxNode, kernel: Pair, shape: Shape, around: Pads
) -> tuple[Pair, Pads, Pads, Pair]:
    """Describe how a node moves a window over an image, ``around`` which a Pad put zeros.

    Returns the stride, the node's own pads, those with the Pad's, and the output's ``(H, W)``.
    """
    top, left, bottom, right = around
    shape = (shape[0], shape[1] + top + bottom, shape[2] + left + right)
    stride = _pair(node, "strides", 1)
    ends = node.ints.get("pads", NO_PADS)
    given = ends if len(ends) == 4 else (0, ends[0], 0, ends[1])
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
        begin = (travel // stride[axis] + 1) * stride[axis]  # of the window that ceil_mode adds
        if node.integer("ceil_mode", 0) and travel % stride[axis] and begin < extent + ends[0]:
            if node.op != "MaxPool":
                node.refuse(
                    f"{node.op} with ceil_mode=1, whose last window hangs over the image "
                    f"{shape[1:]}; hwquant handles that of MaxPool"
                )
            after[axis] += begin - travel
            travel = begin
        output[axis] = travel // stride[axis] + 1
    own = (before[0], before[1], after[0], after[1])
    pads = (own[0] + top, own[1] + left, own[2] + bottom, own[3] + right)
    return stride, own, pads, (output[0], output[1])


def _pair(node: OnnxNode, attribute: str, default: int) -> Pair:
    """Return an attribute of two integers; a sequence (N, C, L) has one, along L."""
    values = node.ints.get(attribute, (default, default))
    return (default, values[0]) if len(values) == 1 else (values[0], values[1])
