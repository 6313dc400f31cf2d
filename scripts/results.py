"""Measure accuracy of methods and bit widths on real networks, and write docs/results.md.

python scripts/results.py ../shared/models  # takes an hour; --networks, --variants and --limit less
"""

import argparse
import json
import math
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwquant import __version__, accuracy, dataset
from hwquant.importer.load import load
from hwquant.ir import INPUT
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize

SIZES = {"ppocr_cls": (3, 48, 192)}  # of images, where the network leaves them open
LIMITS = {"cifar10_jpeg.npz": 500, "imagenet.npz": 100}  # to save time
BITS = ((4, 4), (3, 4), (4, 8), (8, 8))
PUBLISHED = {"variance_correction": False, "rescue": False}  # none of these papers has them
PAPER = PUBLISHED | {"levels": "rounded", "search": "weights", "rounding": "nearest"}
NEAREST = PUBLISHED | {"method": "uniform", "rounding": "nearest"}
VARIANTS: dict[str, dict[str, Any]] = {
    "power": {},
    "power, half as many MACs again": {"extra_macs": 0.5},
    "power, rounded levels": {"levels": "rounded"},
    "power, as published": PAPER,
    "uniform": {"method": "uniform"},
    "log": PUBLISHED | {"method": "log"},
    "DFQ (equalize, nearest, uniform)": NEAREST | {"equalize": True},
    "SQuant (uniform)": PUBLISHED | {"method": "uniform", "rounding": "squant"},
    "OMSE (uniform, nearest)": NEAREST | {"ranges": "omse"},
}


def configuration(entry: dict[str, Any], data: Path) -> QuantConfig:
    is_signed = np.load(data)["x"].dtype == np.int8
    return QuantConfig(mean=(*entry["mean"],), std=(*entry["std"],), input_signed=is_signed)


def rows(given: argparse.Namespace, name: str, entry: dict[str, Any], data: str) -> list[str]:
    model, base = given.models / entry["file"], configuration(entry, given.models / data)
    graph, limit = load(model, SIZES.get(name)), given.limit or LIMITS.get(data)
    low, lines = base.lowest_pixel, list[str]()
    images = dataset.load(given.models / data, graph.shapes[INPUT], low, low + 255, limit=limit)
    for variant in given.variants:
        cells, float_top1, count = list[str](), 0.0, 0
        for digit in BITS:
            if "extra_macs" in VARIANTS[variant] and min(digit) == base.edge_bits:
                cells.append("-")  # no digit is a second one
                continue
            bits = replace(base, weight_bits=digit[0], act_bits=digit[1])
            made = quantize(graph, replace(bits, **VARIANTS[variant]))
            found = accuracy.measure(model, graph, made, images, lambda *_: None)
            float_top1, count = found.float_top1, found.n
            cells.append(f"{100 * found.top1:.2f} ({100 * found.agreement:.1f})")
            print(name, data, variant, *digit, cells[-1], file=sys.stderr)
        row = name, data.removesuffix(".npz"), count, f"{100 * float_top1:.2f}"
        error = f"{100 * math.sqrt(float_top1 * (1 - float_top1) / count):.1f}"
        lines.append(f"| {' | '.join(map(str, (*row, error, variant, *cells)))} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=Path, help="folder with models.json")
    parser.add_argument("--networks", nargs="+", help="these only")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--limit", type=int, help="take the first images only")
    parser.add_argument("--output", default="docs/results.md")
    given = parser.parse_args()
    lines, entries = list[str](), json.loads((given.models / "models.json").read_text())
    for name in given.networks or entries:
        entry = entries[name]
        for data in (entry["data"], entry["more_data"]) if entry["data"] else ():
            if data and np.load(given.models / data)["x"].dtype.kind != "f":
                lines += rows(given, name, entry, data)
    head = " | ".join(f"W{w}A{a}" for w, a in BITS)
    text = f"""# Results

Made by `python scripts/results.py {shlex.join(sys.argv[1:])}` with hwquant
{__version__}; do not edit. Top-1 in % and, in brackets, the share of images that get float's
answer. Edge layers 8 bits, static ranges, no data. `n` images; `error` is a standard deviation, in
points; rows of a network are paired. Processors differ in single precision, and with it the rows.

| network | data | n | float | error | method | {head} |
|---|---|---:|---:|---:|---|{"---:|" * len(BITS)}
{chr(10).join(lines)}
"""
    Path("/dev/stdout" if given.output == "-" else given.output).write_text(text)


if __name__ == "__main__":
    main()
