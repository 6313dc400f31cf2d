"""Measure what PowerQuant's tables 5, 9, 18, 19 and appendix E ask, and write docs/paper_cost.md.

python scripts/paper_cost.py ../shared/models    # two minutes; needs no images
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

from hwquant import __version__, effort
from hwquant.float_graph import FloatGraph
from hwquant.importer.load import load
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.exponent import STARTS, find_minimum, weight_error
from hwquant.quantizer.lower import lower
from hwquant.quantizer.quantize import quantize, search_sites
from hwquant.quantizer.statistics import weight_statistics
from hwquant.report import installed
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.schedule import schedule

PLAN = Plan(16, 16, 4)
RESNETS = ["mlperf_ic_resnet8", "resnet20_cifar10", "resnet56_cifar10"]
OTHERS = ["fmnist_densenet", "fmnist_silu_se", "cifar10_cnn_gelu", "mlperf_vww_mobilenetv1"]
WAYS: dict[str, dict[str, str]] = {
    "power": {},
    "power, eq. 3, nearest": {"search": "weights", "rounding": "nearest"},
    "uniform": {"method": "uniform"},
    "uniform, SQuant": {"method": "uniform", "rounding": "squant"},
}
PARTS = ["macs", "requantize", "activation", "pool", "other"]
SHARES = ["codes", "whole", *PARTS]
TABLES = {
    "Table 5: arithmetic computation effort (ACE) of a frame": SHARES,
    f"Table 18: cycles of a frame, {PLAN.rows} x {PLAN.cols}, {PLAN.lanes} lanes": SHARES,
    "Table 9: eq. 3, one exponent or one a layer": ["one", "error", "least", "most", "error"],
    "Table 19: seconds to quantize, two threads, median of 3": list(WAYS),
    "Appendix E: float weights, mean over layers": ["layers", "std", "skewness", "kurtosis"],
}
TEXT = """# The paper's tables of cost, on other networks

Made by `python scripts/paper_cost.py {}`
with hwquant {}; do not edit. W4A4. [reports.md](reports.md) says what the components are.
"""


def shares(graph: FloatGraph, config: QuantConfig, cost: str) -> list[str]:
    steps = effort.measure(made := quantize(graph, config), schedule(made, PLAN))
    sums = [sum(getattr(getattr(step, cost), part) for step in steps) for part in PARTS]
    return [config.method, f"{sum(sums):,}", *(f"{part / sum(sums):.2%}" for part in sums)]


def exponents(graph: FloatGraph, config: QuantConfig) -> list[str]:
    sites, top = search_sites(graph, config), 2 ** (config.weight_bits - 1) - 1
    whole, *parts = [weight_error(some, top) for some in (sites, *([site] for site in sites))]
    one, *each = [find_minimum(error, min(STARTS, key=error)) for error in (whole, *parts)]
    least = sum(error(exponent) for error, exponent in zip(parts, each, strict=True))
    return [f"{number:.4f}" for number in (one, whole(one), min(each), max(each), least)]


def seconds(graph: FloatGraph, config: QuantConfig) -> list[str]:
    runs = [[replace(config, **way)] * 3 for way in WAYS.values()]
    return [f"{median(quantize(graph, c).provenance.seconds for c in run):.2f}" for run in runs]


def moments(graph: FloatGraph, _: QuantConfig) -> list[str]:
    found = [(w.deviation, w.skewness, w.kurtosis) for w in weight_statistics(lower(graph))]
    return [str(len(found)), *(f"{mean(moments):.4f}" for moments in zip(*found, strict=True))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, help="folder with models.json and networks")
    parser.add_argument("--networks", nargs="+", default=RESNETS + OTHERS)
    parser.add_argument("--output", type=Path, default="docs/paper_cost.md")
    given = parser.parse_args()
    entries = json.loads((given.models / "models.json").read_text())
    tables: list[list[list[str]]] = [[] for _ in TABLES]
    for entry in [entries[name] for name in given.networks]:
        graph = load(given.models / entry["file"])
        config = QuantConfig(mean=(*entry["mean"],), std=(*entry["std"],))
        both = (config, replace(config, method="uniform"))
        for table, cost in zip(tables, ("ace", "cycles"), strict=False):
            table += [[graph.name, *shares(graph, codes, cost)] for codes in both]
        for table, make in zip(tables[2:], (exponents, seconds, moments), strict=True):
            table.append([graph.name, *make(graph, config)])
    packages = map(" ".join, installed("numpy", "scipy").items())
    text = TEXT.format(" ".join(sys.argv[1:]), ", ".join([__version__, *packages]))
    for (title, names), lines in zip(TABLES.items(), tables, strict=True):
        rows = [["network", *names], ["---", *["---:"] * len(names)], *lines]
        text += f"\n## {title}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)
    given.output.write_text(text)


if __name__ == "__main__":
    main()
