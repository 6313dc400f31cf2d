"""From the command line's MODEL to a quantized network and its accuracy."""

from dataclasses import dataclass
from pathlib import Path

from hwquant import accuracy, dataset, packaged
from hwquant.commands import terminal
from hwquant.commands.options import QuantOptions
from hwquant.dataset import Dataset
from hwquant.float_graph import FloatGraph
from hwquant.importer.load import load as load_onnx
from hwquant.importer.load import shortened
from hwquant.ir import QuantGraph
from hwquant.quantizer.quantize import quantize


@dataclass(frozen=True, eq=False)
class Network:
    """A network as trained and as integers, the file it came from, and where it ends there."""

    path: Path
    until: str | None
    floating: FloatGraph
    quantized: QuantGraph


def load(model: Path | None, options: QuantOptions) -> Network:
    """Import and quantize ``model``, or the network that ships; tell what the import changed."""
    config = options.config(model)
    path = model or packaged.model_path()
    terminal.say(f"import {path.name}")
    floating = load_onnx(path, options.input_shape, options.until)
    for note in floating.notes:
        terminal.say(f"note: {note}")
    terminal.say(f"quantize W{config.weight_bits}A{config.act_bits} {config.method}")
    return Network(path, options.until, floating, quantize(floating, config))


def load_data(graph: QuantGraph, path: Path, limit: int | None) -> Dataset:
    """Read images for ``graph``."""
    source = graph.input
    high = source.low + (1 << source.bits) - 1
    return dataset.load(path, source.shape, source.low, high, limit=limit)


def random_data(graph: QuantGraph, count: int, seed: int) -> Dataset:
    """Draw random images for ``graph``."""
    source = graph.input
    high = source.low + (1 << source.bits) - 1
    return dataset.random_frames(source.shape, source.low, high, count, seed)


def measure(network: Network, data: Dataset) -> accuracy.Accuracy:
    """Measure float and quantized accuracy, with progress on stderr."""
    terminal.say(f"accuracy on {len(data.images)} images of {data.name}")
    path, until = network.path, network.until
    model = path if until is None else shortened(path, until)
    with terminal.accuracy_bars(len(data.images)) as progress:
        return accuracy.measure(model, network.floating, network.quantized, data, progress)
