"""Draw figures 1, 2 and 3 of PowerQuant for other networks, into docs/figures.

python scripts/paper_figures.py ../shared/models    # two minutes; pip install 'hwquant[plots]'
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from hwquant import accuracy, dataset
from hwquant.importer.load import load
from hwquant.ir import INPUT
from hwquant.power import Grid
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import exponent_errors, quantize

FOLDER = Path("docs/figures")
NETWORKS = ("resnet20_cifar10", "fmnist_densenet")
BITS = (8, 6, 4)
WAYS: dict[str, dict[str, Any]] = {
    "DFQ": {"method": "uniform", "rounding": "nearest", "equalize": True},
    "OMSE": {"method": "uniform", "rounding": "nearest", "ranges": "omse"},
    "SQuant": {"method": "uniform", "rounding": "squant"},
    "uniform": {"method": "uniform"},
    "power": {},
}
SHAPES = (0.35, 0.55, 1.0, 1.8)  # exponents of figure 2
EXPONENTS = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0)


class Subject:
    def __init__(self, models: Path, name: str, limit: int) -> None:
        entry = json.loads((models / "models.json").read_text())[name]
        self.model, data = models / entry["file"], models / entry["data"]
        self.graph = load(self.model)
        self.base = QuantConfig(mean=(*entry["mean"],), std=(*entry["std"],))
        self.images = dataset.load(data, self.graph.shapes[INPUT], 0, 255, limit=limit)

    def top1(self, **changes: Any) -> tuple[float, float]:
        """Top-1 in %, and one standard deviation of its sampling error."""
        codes = quantize(self.graph, replace(self.base, **changes))
        found = accuracy.measure(self.model, self.graph, codes, self.images, lambda *_: None)
        return 100 * found.top1, 100 * (found.top1 * (1 - found.top1) / found.n) ** 0.5


def methods(of: Subject, axes: Any) -> None:
    """Figure 1: data-free methods, side by side."""
    for at, (way, changes) in enumerate(WAYS.items()):
        top1, errors = np.transpose([of.top1(weight_bits=b, act_bits=b, **changes) for b in BITS])
        axes.errorbar(np.arange(len(BITS)) + at / 8, top1, errors, fmt="o", label=way)
    axes.set_xticks(np.arange(len(BITS)) + 0.25, [f"W{bits}A{bits}" for bits in BITS])
    axes.set(ylabel="top-1 in %", title=of.graph.name)
    axes.legend(loc="lower left")


def levels(exponent: float, axes: Any) -> None:
    """Figure 2: where 4-bit levels lie in a normal distribution, and their RMS error."""
    weights, grid = np.linspace(-1, 1, 301), Grid("power", exponent, 7)
    density = np.exp(-((3.5 * weights) ** 2) / 2)  # the largest weight is at 3.5 sigma
    nearest = np.sign(weights) * grid.levels[grid.encode(np.abs(weights))]
    error = np.average((weights - nearest) ** 2, weights=density) ** 0.5
    axes.plot(weights, density)
    axes.vlines([*-grid.levels, *grid.levels], 0, 1, linewidth=0.8)
    axes.set(title=f"a = {exponent}: {error:.4f}", yticks=[])


def exponents(of: Subject, axes: Any) -> None:
    """Figure 3: accuracy and the error of eq. 3 over the exponent, W4A4."""
    top1, errors = np.transpose([of.top1(exponent=a) for a in EXPONENTS])
    axes.errorbar(EXPONENTS, top1, errors, marker="o", markersize=3)
    axes.set(title=of.graph.name, xlabel="exponent", ylabel="top-1 in % (o)")
    other = axes.twinx()
    lost = [exponent_errors(of.graph, of.base, a)["weight error"] for a in EXPONENTS]
    other.plot(EXPONENTS, lost, "C1s--", markersize=3)
    other.set_ylabel("error of eq. 3 (squares)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, help="folder with models.json, networks and data")
    parser.add_argument("--images", type=int, default=600, help="take the first images only")
    given = parser.parse_args()
    mpl.rcParams.update({"svg.hashsalt": "", "svg.fonttype": "none", "font.size": 8})
    subjects = [Subject(given.models, name, given.images) for name in NETWORKS]
    for draw, over in ((methods, subjects), (levels, SHAPES), (exponents, subjects)):
        figure = Figure((8, 3), layout="constrained")
        for axes, what in zip(figure.subplots(1, len(over)), over, strict=True):
            draw(what, axes)
        figure.savefig(FOLDER / f"{draw.__name__}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
