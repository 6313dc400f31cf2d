"""Read an ONNX file into a ``FloatGraph``; the one door to ``onnx`` and ``onnxsim``.

It refuses what is no usable network file, and lets onnxsim fold constants and infer shapes for a
batch of one. What is left becomes plain records, which ``importer.layers`` turns into nodes.
"""

# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
# Neither onnx nor onnxsim says the type of every argument, and onnxsim has no stubs.

import contextlib
import difflib
import hashlib
import os
import re
import sys
import textwrap
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxsim
from onnx import AttributeProto, external_data_helper, inliner, numpy_helper

from hwquant.errors import BadInput, UnsupportedModel
from hwquant.float_graph import FloatGraph, Integers
from hwquant.importer.graph import OnnxGraph, OnnxNode
from hwquant.importer.layers import convert
from hwquant.importer.names import readable_names
from hwquant.importer.normal import normalize

_OLDEST_OPSET = 7  # before it, Add and Mul broadcast by attributes
_LAST_AXIS = 13  # from it on, Softmax is over the last axis by default, before over the second
_FLOATS = (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
_INTEGERS: dict[int, Integers] = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.INT8: "int8"}
_POSITIVE = ("kernel_shape", "strides", "dilations")
_LEFT_ALONE = [  # of onnxsim's rewrites: these tear activation functions apart
    "fuse_mul_into_conv",
    "fuse_preceding_mul_into_conv",
    "fuse_add_bias_into_conv",
]


def load(
    path: Path, input_shape: tuple[int, ...] | None = None, until: str | None = None
) -> FloatGraph:
    """Read the network in an ONNX file, batch norms and biases folded into convolutions.

    ``input_shape`` fixes the input's dimensions but the batch, in the network's own order, where it
    leaves them open. ``until`` is the node or tensor that the network is to end at; it counts in
    the network's ``sha256``.

    The result computes what the ONNX network computes, for images in C, H, W order, up to a final
    Softmax, LogSoftmax or Sigmoid, which is dropped and named in ``notes``.

    Raises
    ------
    BadInput
        If the file is missing, not ONNX, truncated, or its weights are missing or not finite; if
        ``input_shape`` contradicts the network, or it has nothing called ``until``.
    UnsupportedModel
        If the network holds something that hwquant cannot compute; names the node and the reason.
    """
    content = _read(path)
    model = _parse(path, content, until)
    tensor, dims = _input(path, model)
    shape = _input_shape(tensor, dims, input_shape)
    producers = {name: node.name for node in model.graph.node for name in node.output}
    graph = _plain(_simplify(path, model, tensor, shape), tensor, producers)
    sha256 = hashlib.sha256(content + (until or "").encode()).hexdigest()
    return convert(normalize(graph), path.stem, sha256)


def shortened(path: Path, until: str) -> bytes:
    """Return the ONNX network that ends at the node or tensor ``until``, as a file's content."""
    return _parse(path, _read(path), until).SerializeToString()


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    if not content:
        raise BadInput(f"{path}: the file is empty")
    return content


def _parse(path: Path, content: bytes, until: str | None) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(content)
        for node in model.graph.node:
            "".join((node.name, *node.input, *node.output))  # what is not UTF-8 comes as bytes
    except Exception as error:  # TypeError, or DecodeError from protobuf, which has no type stubs
        raise BadInput(f"{path}: not an ONNX file, or a truncated one") from error
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise BadInput(f"{path}: holds no ONNX network, or was truncated")
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx raises OSError, ValueError and its checker's error here
        raise BadInput(
            f"{path}: the weights it keeps in other files cannot be read: {_cause(error)}"
        ) from error
    opset = _opset(model)
    if opset < _OLDEST_OPSET:
        raise UnsupportedModel(f"{path}: ONNX opset {opset}; hwquant handles 7 and newer")
    if model.functions:
        model = inliner.inline_local_functions(model)
    if until is not None:
        _cut(path, model, until)
    for node in model.graph.node:
        _check_node(node)
    try:
        if not all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
            model = onnx.shape_inference.infer_shapes(model)  # the checker wants them
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, and whatever its C++ side throws
        raise BadInput(f"{path}: not a valid ONNX network: {_cause(error)}") from error
    return model


def _opset(model: onnx.ModelProto) -> int:
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def _cut(path: Path, model: onnx.ModelProto, until: str) -> None:
    """End a network at a tensor, or at a node's first output, and drop what that does not need."""
    graph = model.graph
    named = {node.name: node.output[0] for node in graph.node if node.name and node.output}
    named |= {tensor: tensor for node in graph.node for tensor in node.output if tensor}
    if until not in named:
        close = ", ".join(difflib.get_close_matches(until, named, cutoff=0))
        raise BadInput(f"--until {until}: {path.name} has nothing of that name, but {close}")
    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = {value.name: value for value in (*inferred.value_info, *inferred.output)}
    output = known.get(named[until]) or onnx.ValueInfoProto(name=named[until])
    output.type.tensor_type.shape.SetInParent()  # onnx checks that there is one, not which
    needed, live = {named[until]}, list[onnx.NodeProto]()
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(_reads(node))
            live.insert(0, node)
    kept = [value for value in graph.input if value.name in needed]
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    for field in (graph.node, graph.input, graph.initializer, graph.output):
        del field[:]
    graph.node.extend(live)
    graph.input.extend(kept)
    graph.initializer.extend(weights)
    graph.output.append(output)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads, those of its branches included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _reads(inner)


def _check_node(node: onnx.NodeProto) -> None:
    """Refuse foreign operators, and sizes below 1: onnx lets them pass, onnxsim divides by them."""
    label = node.name or next(iter(node.output), node.op_type)
    if node.domain not in ("", "ai.onnx"):
        raise UnsupportedModel(
            f"{label}: operator {node.domain}.{node.op_type}; "
            "hwquant handles the standard operators of ONNX"
        )
    for attribute in node.attribute:
        if attribute.name in _POSITIVE and min(attribute.ints, default=1) < 1:
            raise BadInput(f"{label}: {attribute.name} = {list(attribute.ints)}; 1 is the smallest")


def _cause(error: Exception) -> str:
    """Put onnx's report, which may run over many lines, into one short one."""
    words = re.sub(r"\[\w+Error\]|Inference error\(s\):", "", str(error)).split()
    return textwrap.shorten(" ".join(words) or type(error).__name__, 240, placeholder=" ...")


def _input(path: Path, model: onnx.ModelProto) -> tuple[str, list[int | str]]:
    """Return the network's only input: its name, and its dimensions, the batch first.

    A dimension that the network leaves open is the name that it has there.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    for kind, values, hint in (
        ("input", inputs, ""),
        ("output", model.graph.output, "; --until NAME takes one of them"),
    ):
        if len(values) != 1:
            names = ", ".join(value.name for value in values) or "none"
            raise UnsupportedModel(
                f"{path}: {len(values)} {kind}s ({names}); hwquant handles networks with one{hint}"
            )
    name, tensor = inputs[0].name, inputs[0].type.tensor_type
    if tensor.elem_type not in (*_FLOATS, *_INTEGERS):
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise UnsupportedModel(
            f"input {name!r} is {kind}; hwquant handles float16, float, double, uint8 and int8"
        )
    dims = list(tensor.shape.dim)
    if len(dims) not in (2, 3, 4):
        raise UnsupportedModel(
            f"input {name!r} has {len(dims)} dimensions; hwquant handles (N, C, H, W), "
            "(N, H, W, C), (N, C, L), (N, L, C) and (N, F)"
        )
    return name, [
        dim.dim_value
        if dim.HasField("dim_value") and dim.dim_value >= 0
        else dim.dim_param or "unnamed"
        for dim in dims
    ]


def _input_shape(
    name: str, dims: list[int | str], given: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Return the input's shape, for a batch of one where the network leaves that open."""
    batch, *dims = dims
    if given is not None and len(given) != len(dims):
        raise BadInput(
            f"--input-shape has {len(given)} numbers; input {name!r} has {len(dims)} dimensions "
            "besides the batch"
        )
    shape = [batch if isinstance(batch, int) and batch else 1]
    for axis, dim in enumerate(dims, start=1):
        size = dim if given is None else given[axis - 1]
        if isinstance(size, str):
            example = ",".join(str(other) for other in dims)
            raise UnsupportedModel(
                f"input {name!r}: dimension {axis} ({dim}) is dynamic; fix the sizes of all "
                f"dimensions but the batch with --input-shape, here {example}"
            )
        if size < 1:
            raise BadInput(f"input {name!r}: dimension {axis} has size {size}")
        if dim != size and not isinstance(dim, str):
            raise BadInput(
                f"--input-shape: dimension {axis} of input {name!r} is {dim}, not {size}"
            )
        shape.append(size)
    return tuple(shape)


@contextlib.contextmanager
def _silence() -> Generator[None, None, None]:
    """Discard what onnxsim prints, from Python and C++; what matters is refused by name later."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        with Path(os.devnull).open("w") as void:
            for descriptor in (1, 2):
                os.dup2(void.fileno(), descriptor)
            with contextlib.redirect_stdout(void), contextlib.redirect_stderr(void):
                yield
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


def _simplify(
    path: Path, model: onnx.ModelProto, tensor: str, shape: tuple[int, ...]
) -> onnx.ModelProto:
    # Shapes declared for another batch would contradict the inferred ones.
    del model.graph.value_info[:]
    for dim in model.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()
    # certify=False: onnxsim would otherwise look for a proof wherever z3 is installed.
    try:
        with _silence():
            simplify = cast(Callable[..., tuple[onnx.ModelProto, bool]], onnxsim.simplify)
            simplified, _ = simplify(
                model,
                overwrite_input_shapes={tensor: list(shape)},
                skip_fuse_bn=True,
                skipped_optimizers=_LEFT_ALONE,
                certify=False,
            )
    except Exception as error:  # onnxsim raises RuntimeError and whatever onnx raises
        raise UnsupportedModel(
            f"{path}: onnxsim cannot fold the network's constants: {_cause(error)}"
        ) from error
    simplified.graph.output[0].type.tensor_type.ClearField("shape")  # of perhaps another rank
    try:
        return onnx.shape_inference.infer_shapes(simplified, check_type=True, strict_mode=True)
    except Exception as error:  # InferenceError, and whatever its C++ side throws
        raise BadInput(
            f"{path}: types or shapes contradict each other for images of shape {shape[1:]}: "
            f"{_cause(error)}"
        ) from error


def _plain(model: onnx.ModelProto, tensor: str, producers: dict[str, str]) -> OnnxGraph:
    """Copy the simplified network into plain records; ``producers`` names nodes as the user did.

    Where the network fixes another batch than one, shapes are those of one image all the same.
    """
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    shapes = dict[str, tuple[int, ...]]()
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    batch = shapes[tensor][0]
    shapes = {
        name: (1, *sizes[1:]) if sizes[:1] == (batch,) else sizes for name, sizes in shapes.items()
    }
    opset = _opset(model)
    output = model.graph.output[0].name
    live, needed = list[onnx.NodeProto](), {output}
    for node in reversed(model.graph.node):
        if node.op_type == "Constant":
            constants |= _constant(node)
        elif needed.intersection(node.output):
            needed.update(node.input)
            live.insert(0, node)
    labels = [
        next((producers[name] for name in node.output if producers.get(name)), "")
        or node.name
        or node.output[0]
        for node in live
    ]
    names = readable_names([node.op_type for node in live], labels)
    nodes = tuple(
        _plain_node(node, label, name, opset)
        for node, label, name in zip(live, labels, names, strict=True)
    )
    (image,) = (value for value in model.graph.input if value.name == tensor)
    integers = _INTEGERS.get(image.type.tensor_type.elem_type)
    return OnnxGraph(nodes, constants, shapes, tensor, output, integers)


def _constant(node: onnx.NodeProto) -> dict[str, npt.NDArray[Any]]:
    value = node.attribute[0]
    if value.type == AttributeProto.TENSOR:
        return {node.output[0]: numpy_helper.to_array(value.t)}
    number = onnx.helper.get_attribute_value(value)
    kind = np.float32 if value.type in (AttributeProto.FLOAT, AttributeProto.FLOATS) else None
    return {node.output[0]: np.array(number, kind)}


def _plain_node(node: onnx.NodeProto, label: str, name: str, opset: int) -> OnnxNode:
    ints = dict[str, tuple[int, ...]]()
    if node.op_type in ("Softmax", "LogSoftmax"):
        ints["axis"] = (-1 if opset >= _LAST_AXIS else 1,)
    floats = dict[str, float]()
    texts = dict[str, str]()
    for attribute in node.attribute:
        match attribute.type:
            case AttributeProto.INT:
                ints[attribute.name] = (attribute.i,)
            case AttributeProto.INTS:
                ints[attribute.name] = tuple(attribute.ints)
            case AttributeProto.FLOAT:
                floats[attribute.name] = attribute.f
            case AttributeProto.STRING:
                texts[attribute.name] = attribute.s.decode(errors="replace")
            case _:
                pass  # no operator that hwquant handles has any other kind
    is_identity = node.op_type == "Cast" and ints["to"][0] in _FLOATS
    op = "Identity" if is_identity else node.op_type
    return OnnxNode(op, label, name, tuple(node.input), tuple(node.output), ints, floats, texts)
