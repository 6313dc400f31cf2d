"""``hwquant eval``: float and quantized accuracy on the same images."""

from pathlib import Path

import click

from hwquant import packaged, report
from hwquant.commands import networks, tables, terminal
from hwquant.commands.options import (
    QuantOptions,
    data_option,
    json_option,
    limit_option,
    model_argument,
    quant_options,
)
from hwquant.errors import BadInput


@click.command(name="eval")
@model_argument
@data_option
@limit_option
@click.option(
    "--build",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Store the accuracy in this build directory's report.",
)
@quant_options
@json_option
def evaluate(
    options: QuantOptions,
    model: Path | None,
    data: Path | None,
    limit: int | None,
    build: Path | None,
    as_json: bool,
) -> None:
    """Measure top-1 of MODEL in float (ONNX Runtime) and quantized (golden).

    Without MODEL: the network that ships, and without --data its 500 test images.
    """
    if data is None and model is not None:
        raise click.UsageError("Missing option '--data': which images?")
    kept = report.read(build) if build is not None else None
    network = networks.load(model, options)
    images = networks.load_data(network.quantized, data or packaged.data_path(), limit)
    made = report.of_network(network.quantized.provenance)
    made["accuracy"] = report.accuracy_section(networks.measure(network, images))
    made["tools"] = report.installed("onnxruntime")
    if build is not None and kept is not None:
        different = _difference(kept, made)
        if different:
            raise BadInput(f"{build}: made with another {different} than this evaluation")
        report.update(build, {"accuracy": made["accuracy"]}, made["tools"])
    if as_json:
        terminal.print_json(made)
    else:
        tables.print_evaluation(made)


def _difference(kept: report.Report, made: report.Report) -> str | None:
    """Name what differs between the network of a build directory and the one evaluated."""
    if kept["model_sha256"] != made["model_sha256"]:
        return "model"
    for name, value in made["quantization"].items():
        if name != "seconds" and kept["quantization"][name] != value:
            return f"{name} ({kept['quantization'][name]}, not {value})"
    return None
