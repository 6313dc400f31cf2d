"""``convert`` makes a ``FloatGraph`` of a simplified ONNX network, one operator at a time."""

from collections.abc import Callable
from dataclasses import replace

from hwquant.errors import UnsupportedModel
from hwquant.float_graph import (
    FloatAdd,
    FloatConcat,
    FloatGraph,
    FloatMultiply,
    sources,
)
from hwquant.importer import attention, channels, image, pixels
from hwquant.importer.fold import arithmetic, batch_norm, convolution, fully_connected
from hwquant.importer.function import ELEMENTWISE, settle, waits
from hwquant.importer.graph import Conversion, OnnxGraph, OnnxNode, View, regroup
from hwquant.ir import Layout


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
        if node.op in _QUANTIZED:
            node.refuse(
                f"{node.op}: the network is quantized already; hwquant takes it as trained, in "
                "float, and quantizes it itself"
            )
        if node.op not in (*_OPERATORS, *ELEMENTWISE, *_FINAL):
            known = ", ".join(dict.fromkeys((*_OPERATORS, *ELEMENTWISE)))
            node.refuse(
                f"operator {node.op} is not supported; --until NAME ends the network at a node or "
                f"tensor before it; hwquant handles {known}; at the output also {', '.join(_FINAL)}"
            )
    _check_moves(graph)
    layout = _layout(graph)
    state = Conversion(graph, layout)
    ends = _ends(state)
    for node in graph.nodes:
        _convert(state, node, ends)
    settle(state, graph.output)
    if not state.nodes:
        raise UnsupportedModel(f"{name}: the network has no layers")
    view = state.whole(graph.nodes[-1], state.views[graph.output])
    read = {source for made in state.nodes.values() for source in sources(made)}
    for unread in state.taken_apart - read - {view.source}:
        del state.nodes[unread], state.shapes[unread]
    state.notes += pixels.costs(state)
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
        integers=graph.integers,
    )


def _check_moves(graph: OnnxGraph) -> None:
    """Refuse operators that compute with integers, which wrap, before a Cast made them floats."""
    raw = {graph.input} if graph.integers else set[str]()
    for node in graph.nodes:
        if raw.intersection(node.inputs):
            if node.op not in _RESHAPES:
                node.refuse(f"{node.op} of {graph.integers}; hwquant handles a Cast to float first")
            if "to" not in node.ints:
                raw.update(node.outputs)


def _ends(state: Conversion) -> set[str]:
    """Return the output, and the tensors that nothing but a new shape turns into it."""
    ends = {state.graph.output}
    for node in reversed(state.graph.nodes):
        if node.op in _RESHAPES and node.outputs[0] in ends and state.uses[node.inputs[0]] == 1:
            ends.add(node.inputs[0])
    return ends


def _convert(state: Conversion, node: OnnxNode, ends: set[str]) -> None:
    is_final = node.op in _FINAL and node.outputs[0] in ends
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
    tensor, first = graph.input, None
    for node in graph.nodes:
        if tensor in node.inputs:
            first = node
            if node.op not in ("Pad", "Identity", *ELEMENTWISE):  # these move no axes
                break
            tensor = node.outputs[0]
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
    if not pixels.side_by_side(state, node, views, merged, axes):
        made = FloatConcat(node.name, tuple(view.source for view in views))
        state.emit(made, node, merged, axes)


def _matrix_product(state: Conversion, node: OnnxNode) -> None:
    if node.inputs[1] in state.graph.constants:
        fully_connected(state, node)
    else:
        attention.matrix_product(state, node)


def _reshape(state: Conversion, node: OnnxNode) -> None:
    view = state.parts_view(node)
    before, after = state.shape(node, node.inputs[0]), state.shape(node, node.outputs[0])
    found = regroup(view, state.shapes[view.source], after)
    if found is None:
        node.refuse(
            f"{node.op} from {before} to {after} takes height or width apart; hwquant handles "
            "flattening, shuffles of channels, and heads of tokens"
        )
    axes, split = found
    shown = replace(view, split=split)
    if not channels.shuffle(state, node, shown, axes):
        state.show(node, shown, axes)


def _transpose(state: Conversion, node: OnnxNode) -> None:
    view = state.operand(node)
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


_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity")
_QUANTIZED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
)
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
    "MaxPool": image.pool,
    "AveragePool": image.pool,
    "GlobalMaxPool": image.global_pool,
    "GlobalAveragePool": image.global_pool,
    "ReduceMean": image.reduced,
    "ReduceMax": image.reduced,
    "Slice": image.slice_of,
    "SpaceToDepth": pixels.space_to_depth,
    "Pad": image.pad,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose,
    "Split": channels.split,
    "Gather": attention.gather,
    "LayerNormalization": attention.layer_norm,
    "Softmax": attention.softmax,
    "Identity": _identity,
    "Dropout": _identity,
}
