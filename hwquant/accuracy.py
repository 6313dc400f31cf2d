"""Float and quantized accuracy on the same images."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# onnxruntime has no stubs.

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnxruntime

from hwquant import golden
from hwquant.dataset import Dataset
from hwquant.errors import BadInput, ToolFailed
from hwquant.float_graph import FloatGraph
from hwquant.ir import FloatArray, IntArray, QuantGraph

_BATCH = 64
_KINDS = {  # of inputs, else float32
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
}

Progress = Callable[[str, int], None]  # which side, how many more images are done


@dataclass(frozen=True)
class Accuracy:
    """Shares of ``n`` images: right by float, right by golden, and same answer by both."""

    data: str
    n: int
    float_top1: float
    top1: float
    agreement: float


def measure(
    model: Path | bytes, graph: FloatGraph, quantized: QuantGraph, data: Dataset, progress: Progress
) -> Accuracy:
    """Classify the images of ``data`` with ONNX Runtime and with golden.

    ``model`` is an ONNX file, or the content of one.

    Raises
    ------
    BadInput
        If there are no labels, or labels and outputs do not go together.
    ToolFailed
        If ONNX Runtime cannot run the network.
    """
    if data.labels is None:
        raise BadInput(f"{data.name}: has no labels 'y'")
    classes = _classes(graph)
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= classes:
        raise BadInput(
            f"{data.name}: labels {low}..{high}; the network has classes 0..{classes - 1}"
        )
    provenance = quantized.provenance
    values = golden.simulate(quantized, data.images, progress=lambda done: progress("golden", done))
    real = float_outputs(
        model,
        graph.layout,
        normalise(data.images, provenance.mean, provenance.std),
        lambda done: progress("float", done),
    )
    if real.shape[1] != classes:
        raise BadInput(f"{graph.name}: {real.shape[1]} float outputs, {classes} quantized ones")
    by_float, by_golden = real.argmax(axis=1), values.reshape(len(values), -1).argmax(axis=1)
    return Accuracy(
        data=data.name,
        n=len(values),
        float_top1=_share(by_float == data.labels),
        top1=_share(by_golden == data.labels),
        agreement=_share(by_float == by_golden),
    )


def normalise(images: IntArray, mean: tuple[float, ...], std: tuple[float, ...]) -> FloatArray:
    """Turn the sensor's integers into the network's input: ``(x - mean) / std`` per channel."""
    column = (-1, 1, 1)
    return (images - np.array(mean).reshape(column)) / np.array(std).reshape(column)


def float_outputs(
    model: Path | bytes, layout: str, images: FloatArray, progress: Callable[[int], None]
) -> FloatArray:
    """Run a network as trained: ``float[N, C, H, W] -> float[N, outputs]``.

    Images go in batches: as large as the network fixes, or one by one where it allows no other.
    """
    images = _in_layout(images, layout)
    try:
        options = cast(Any, onnxruntime.SessionOptions())
        options.log_severity_level = 4  # what it warns of is no one's to mend here
        session: Any = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        (tensor,) = session.get_inputs()
        kind = _KINDS.get(tensor.type, np.float32)

        def run(batch: FloatArray) -> FloatArray:
            (output,) = session.run(None, {tensor.name: batch.astype(kind)})
            return np.asarray(output, np.float64)

        fixed: object = tensor.shape[0]
        size = fixed if isinstance(fixed, int) and fixed > 0 else _free_batch(run, images[:1])
        outputs: list[FloatArray] = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            outputs.append(run(_filled(part, size))[: len(part)].reshape(len(part), -1))
            progress(len(part))
    except Exception as error:  # noqa: BLE001  onnxruntime's errors have no common base
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise ToolFailed(f"ONNX Runtime: {words}") from None
    return np.concatenate(outputs)


def _free_batch(run: Callable[[FloatArray], FloatArray], image: FloatArray) -> int:
    """Return a batch size for a network that leaves it open; some take one image all the same."""
    try:
        return _BATCH if len(run(image.repeat(2, axis=0))) == 2 else 1
    except Exception:  # noqa: BLE001  onnxruntime's errors have no common base
        return 1


def _filled(images: FloatArray, size: int) -> FloatArray:
    """Repeat the last image until a batch is full."""
    return np.concatenate([images, images[-1:].repeat(size - len(images), axis=0)])


def _in_layout(images: FloatArray, layout: str) -> FloatArray:
    match layout:
        case "NHWC":
            return images.transpose(0, 2, 3, 1)
        case "NCW":
            return images[:, :, 0]
        case "NWC":
            return images[:, :, 0].transpose(0, 2, 1)
        case "NF":
            return images.reshape(len(images), -1)
        case _:
            return images


def _classes(graph: FloatGraph) -> int:
    classes, height, width = graph.shapes[graph.output]
    if height * width != 1 or classes < 2:
        raise BadInput(
            f"{graph.name}: outputs of shape {(classes, height, width)} are no class scores; "
            "top-1 needs one vector of at least two"
        )
    return classes


def _share(claims: npt.NDArray[np.bool_]) -> float:
    return int(claims.sum()) / len(claims)
