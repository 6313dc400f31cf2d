"""Measure a MAC's cells and a network's accuracy for power and uniform codes: docs/mac.md.

python scripts/bench_mac.py ../shared/models                  # W4A4: a quarter of an hour
python scripts/bench_mac.py ../shared/models --families xc7 --bits 2 3 4 5 --limit 0
python scripts/bench_mac.py ../shared/models --families xc7 --products dsp --codes uniform --limit 0
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwquant import accuracy, dataset
from hwquant.emit import emit_array
from hwquant.fpga.synth import synthesize
from hwquant.importer.load import load
from hwquant.ir import INPUT, ProductTable, QuantGraph
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.plan import Plan, Products

DEVICES = {"xc7": "xc7a100t", "ecp5": "lfe5u-85f", "ice40": "ice40hx8k"}
NETWORK = "resnet20_cifar10"
SIZES = (16, 16, 4)
CODES: dict[str, dict[str, Any]] = {
    "power, whole": {},
    "power, whole, 7 bits": {"product_bits": 7},
    **{f"power, rounded, {p} bits": {"levels": "rounded", "product_bits": p} for p in (5, 6, 7, 8)},
    "uniform": {"method": "uniform"},
    "uniform, multiplier": {"method": "uniform", "accumulate": "levels"},
}
OTHERS = ("power, whole", "uniform")  # of other widths than W4A4


def luts(graph: QuantGraph, device: str, products: Products) -> str:
    """Cells of the whole array a MAC; of multipliers, those with DSP blocks too."""
    with tempfile.TemporaryDirectory() as folder:
        emit_array(graph, Plan(*SIZES, device=device, products=products), Path(folder))
        found = synthesize(Path(folder), device)
    macs = SIZES[0] * SIZES[1]
    if products == "dsp":
        return f"{found.luts_per_mac:.1f} + {found.design.dsps / macs:g} DSP"
    if isinstance(graph.arithmetic, ProductTable) or not found.design.dsps:
        return f"{found.luts_per_mac:.1f}"
    blocks = found.design.dsps / macs
    return f"{found.luts_per_mac:.1f}; {found.design.luts / macs:.1f} + {blocks:g} DSP"


def configurations(given: argparse.Namespace, base: QuantConfig) -> Iterator[tuple[Any, ...]]:
    for bits in given.bits:
        for name in given.codes or (CODES if bits == 4 else OTHERS):
            yield bits, name, replace(base, weight_bits=bits, act_bits=bits, **CODES[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=Path, help="folder with models.json")
    parser.add_argument("--families", nargs="*", choices=DEVICES, default=list(DEVICES))
    parser.add_argument("--bits", nargs="+", type=int, choices=range(2, 6), default=[4])
    parser.add_argument("--codes", nargs="+", choices=CODES, help="these only")
    parser.add_argument("--products", choices=("lut", "dsp"), default="lut")
    parser.add_argument("--limit", type=int, default=600, help="images; 0: no accuracy")
    given = parser.parse_args()
    entry = json.loads((given.models / "models.json").read_text())[NETWORK]
    model, data = given.models / entry["file"], given.models / entry["data"]
    network = load(model)
    images = dataset.load(data, network.shapes[INPUT], 0, 255, limit=max(1, given.limit))
    print(f"| codes | W, A | product | top-1 | {' | '.join(given.families)} |")
    print(f"|---|---:|---:|---:|{'---:|' * len(given.families)}")
    base = QuantConfig(mean=(*entry["mean"],), std=(*entry["std"],))
    for bits, name, config in configurations(given, base):
        graph = quantize(network, config)
        print(name, bits, file=sys.stderr)
        cells = [luts(graph, DEVICES[family], given.products) for family in given.families]
        top1 = "-"
        if given.limit:
            found = accuracy.measure(model, network, graph, images, lambda *_: None)
            top1 = f"{100 * found.top1:.1f}"
        table = graph.arithmetic
        size = int(table.products.max()).bit_length() if isinstance(table, ProductTable) else "-"
        print(f"| {name} | {bits}, {bits} | {size} | {top1} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
