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

from hwquant.float_graph import FloatGraph
from hwquant.importer.load import load
from hwquant.ir import INPUT, FloatArray
from hwquant.quantizer import float_model
from tests.float_model import evaluate

KINDS = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
}
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
        case "NCW":
            images = images[:, :, 0]
        case "NWC":
            images = images[:, :, 0].transpose(0, 2, 1)
        case "NF":
            images = images[:, :, 0, 0]
        case "NCHW":
            pass
    kind = KINDS[tensor.type]
    inputs = ({tensor.name: image[None].astype(kind)} for image in images)
    return np.concatenate([np.asarray(session.run(None, feed)[0], np.float64) for feed in inputs])


def assert_same_function(
    path: Path, shape: tuple[int, ...] | None = None, spread: float = 1.0, seed: int = 1
) -> FloatGraph:
    """Import a network; both executors compute what ONNX Runtime computes of random images."""
    graph = load(path, shape)
    images = np.random.default_rng(seed).normal(0, spread, (2, *graph.shapes[INPUT]))
    if graph.integers:
        images = np.abs(np.rint(images))
    theirs = run(path, graph, images)
    assert np.ptp(theirs) > 0, "a network that computes a constant tests nothing"
    _assert_close(graph, evaluate(graph, images), theirs, seed)
    _assert_close(graph, float_model.evaluate(graph, images), theirs, seed)
    return graph


def _assert_close(graph: FloatGraph, ours: FloatArray, theirs: FloatArray, seed: int) -> None:
    for note in graph.notes:
        if "Softmax" in note:
            ours = ours - np.log(np.exp(ours).sum(axis=1, keepdims=True))
            theirs = theirs if "LogSoftmax" in note else np.log(theirs)
        elif "Sigmoid" in note:
            ours = 1 / (1 + np.exp(-ours))
    error = np.abs(ours.reshape(theirs.shape) - theirs).max()
    assert error <= 1e-4 * np.abs(theirs).max(), f"off by {error}, seed {seed}"
