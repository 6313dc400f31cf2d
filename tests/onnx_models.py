"""Small ONNX networks for tests: written as text, saved to a file, run by ONNX Runtime."""

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper, parser

from hwquant.ir import INPUT, FloatArray, FloatGraph

Arrays = dict[str, npt.NDArray[Any]]


def constants(body: str) -> Arrays:
    """Draw float32 constants of the shapes in their names, ``w_4_3_3_3``; ``variance_4`` is > 0."""
    arrays: Arrays = {}
    for name, dims in re.findall(r"\b([a-z]+((?:_\d+)+))\b", body):
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        values = generator.normal(size=[int(dim) for dim in dims[1:].split("_")])
        arrays[name] = (values**2 if name.startswith("variance") else values).astype(np.float32)
    return arrays


def save(
    folder: Path, image: str, body: str, rank: int, opset: int = 17, given: Arrays | None = None
) -> Path:
    """Write the network ``y = body(x)``, ``x`` of type ``image``; ``given`` replaces constants."""
    output = ", ".join("abcd"[:rank])
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> '
        f"net ({image} x) => (float[{output}] y) {{ {body} }}"
    )
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    arrays = constants(body) | (given or {})
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in arrays.items()
    )
    path = folder / "net.onnx"
    onnx.save(model, path)
    return path


def run(path: Path, graph: FloatGraph, images: FloatArray) -> FloatArray:
    """Let ONNX Runtime compute images in N, C, H, W order, one at a time, in ``graph``'s layout."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (tensor,) = session.get_inputs()
    assert images.shape[1:] == graph.shapes[INPUT]
    match graph.layout:
        case "NHWC":
            images = images.transpose(0, 2, 3, 1)
        case "NF":
            images = images[:, :, 0, 0]
        case "NCHW":
            pass
    kind = np.float64 if tensor.type == "tensor(double)" else np.float32
    inputs = ({tensor.name: image[None].astype(kind)} for image in images)
    return np.concatenate([np.asarray(session.run(None, feed)[0], np.float64) for feed in inputs])
