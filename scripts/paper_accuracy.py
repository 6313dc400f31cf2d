"""Measure what PowerQuant's tables 1 and 7 and appendix B ask, and write docs/paper_accuracy.md.

python scripts/paper_accuracy.py ../shared/models    # four minutes; --images for more
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwquant import __version__, accuracy, dataset
from hwquant.importer.load import load
from hwquant.ir import INPUT
from hwquant.power import Grid
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.exponent import Sorted
from hwquant.quantizer.quantize import quantize, search_sites
from hwquant.report import installed

BITS = ((8, 8), (6, 6), (4, 4), (3, 4))
LACKS = {"variance_correction": False, "rescue": False}  # what the paper does not do
PAPER: dict[str, Any] = LACKS | {"levels": "rounded", "search": "weights"}
METHODS = ("log", "uniform", "power")
NORMS = (1.0, 1.5, 2.0, 3.0, 4.0, math.inf)
Row = Callable[[QuantConfig, str], str]
NETWORKS = ["mlperf_ic_resnet8", "resnet20_cifar10", "fmnist_densenet", "fmnist_vit"]
TEXT = """# The paper's tables of accuracy, on other networks

Made by `python scripts/paper_accuracy.py {arguments}` with hwquant
{versions}; do not edit. No data was used to quantize. `error` is the
sampling error (one standard deviation) of one top-1 on n images, which rows of one network share;
`eq. 3` the L2 errors of the inner layers' weights, rounded to nearest, added up.

## Tables 1 and 7: logarithmic, uniform and power codes, `--levels rounded --search weights`

| network | data | n | float | bits | codes | exponent | top-1 | error | same answer | eq. 3 |
|---|---|---:|---:|---|---|---:|---:|---:|---:|---:|
{methods}

## Appendix B: the p of eq. 3, W4A4, `--norm p`

| network | data | n | float | p | exponent | top-1 | error | same answer | eq. 3 |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
{norms}
"""


def rower(models: Path, entry: dict[str, Any], limit: int) -> tuple[QuantConfig, Row]:
    """The configuration of a network, and what makes a line of a table of a variant of it."""
    model = models / entry["file"]
    graph, base = load(model), QuantConfig(mean=(*entry["mean"],), std=(*entry["std"],), **PAPER)
    images = dataset.load(models / entry["data"], graph.shapes[INPUT], 0, 255, limit=limit)
    weights = [site.weight for site in search_sites(graph, base)]
    layers = [Sorted.of_weights(weight, np.ones(weight.shape[:2])) for weight in weights]

    def row(config: QuantConfig, label: str) -> str:
        quantized = quantize(graph, config)
        exponent = quantized.provenance.exponent
        found = accuracy.measure(model, graph, quantized, images, lambda *_: None)
        grid = Grid(config.method, exponent, 2 ** (config.weight_bits - 1) - 1)
        lost = sum(math.sqrt(layer.square_errors(grid.levels, grid.edges)) for layer in layers)
        error = math.sqrt(found.top1 * (1 - found.top1) / found.n)
        shown = f"{exponent:.3f}" if config.method == "power" else ""
        made = f"| {model.stem} | {found.data} | {found.n} | {found.float_top1:.2%} | {label} "
        made += f"| {shown} | {found.top1:.2%} | {error:.2%} | {found.agreement:.1%} "
        print(made, file=sys.stderr)
        return made + f"| {lost:.4f} |"

    return base, row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, help="folder with models.json, networks and data")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--images", type=int, default=600, help="take the first images only")
    parser.add_argument("--output", type=Path, default=Path("docs/paper_accuracy.md"))
    given = parser.parse_args()
    entries = json.loads((given.models / "models.json").read_text())
    methods, norms = list[str](), list[str]()
    for name in given.networks:
        base, row = rower(given.models, entries[name], given.images)
        for weights, acts in BITS:
            bits = replace(base, weight_bits=weights, act_bits=acts)
            methods += [row(replace(bits, method=m), f"W{weights}A{acts} | {m}") for m in METHODS]
        norms += [row(replace(base, norm=p), f"{p:g}") for p in NORMS]
    packages = installed("numpy", "scipy", "onnxruntime").items()
    versions = ", ".join([__version__, *map(" ".join, packages)])
    tables = {"methods": "\n".join(methods), "norms": "\n".join(norms), "versions": versions}
    given.output.write_text(TEXT.format(arguments=" ".join(sys.argv[1:]), **tables))


if __name__ == "__main__":
    main()
