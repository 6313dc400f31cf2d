"""Cycles of a frame and utilisation, by plan and width of the edges: a Markdown table.

python scripts/bench_cycles.py ../shared/models
python scripts/bench_cycles.py ../shared/models --simulate    # a frame each, twice; hours for all
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hwquant import cosim, golden
from hwquant.emit import emit
from hwquant.importer.load import load
from hwquant.ir import QuantGraph
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.program import Schedule
from hwquant.scheduler.schedule import schedule

NETWORKS = (
    "mlperf_ic_resnet8",
    "resnet20_cifar10",
    "mlperf_kws_dscnn",
    "mlperf_vww_mobilenetv1",
    "mlperf_ad_autoencoder",
    "jets_hls4ml_3layer",
)
PLANS = ("16,16,4", "16,16,8", "8,8,4")


def frames(graph: QuantGraph) -> np.ndarray:
    """Return a frame of random pixels, ``int[1, C, H, W]``."""
    source = graph.input
    pixels = np.random.default_rng(0).integers(0, 1 << source.bits, (1, *source.shape))
    return pixels + source.low


def simulate(graph: QuantGraph, plan: Plan) -> None:
    """Run a frame without stalls and with: values as golden has them, cycles as planned."""
    images = frames(graph)
    values = golden.simulate(graph, images).transpose(0, 2, 3, 1).reshape(1, -1)
    with tempfile.TemporaryDirectory() as folder:
        program = emit(graph, plan, Path(folder))
        for stalls in (None, 1):
            found = cosim.verify(Path(folder), images, values, stalls=stalls)
            if found.mismatches:
                raise SystemExit(f"{graph.provenance.model} {plan}: {found}")
            planned = (program.loading.cycles, *(layer.cycles for layer in program.layers))
            if stalls is None and (found.cycles, found.layer_cycles) != (program.cycles, planned):
                raise SystemExit(f"{graph.provenance.model} {plan}: planned {planned}, {found}")


def cells(program: Schedule) -> Iterator[str]:
    """Cycles of a frame, and the share of the array's MACs in it and in the first layer."""
    per_cycle, first = program.plan.macs_per_cycle, program.layers[0]
    macs = sum(layer.macs for layer in program.layers)
    yield f"{program.cycles:,}"
    yield f"{macs / program.cycles / per_cycle:.1%}"
    yield f"{first.macs / first.cycles / per_cycle:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=Path, help="folder with models.json")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--plans", nargs="+", default=PLANS, help="rows,cols,lanes")
    parser.add_argument("--edge-bits", nargs="+", type=int, default=[4, 8])
    parser.add_argument("--simulate", action="store_true")
    given = parser.parse_args()
    print("| network | edges | rows x columns, lanes | cycles | utilisation | of the first layer |")
    print("|---|---:|---|---:|---:|---:|")
    entries = json.loads((given.models / "models.json").read_text())
    for name in given.networks:
        entry = entries[name]
        network = load(given.models / entry["file"])
        for bits in given.edge_bits:
            sides = {"mean": (*entry["mean"],), "std": (*entry["std"],)}
            graph = quantize(network, QuantConfig(edge_bits=bits, **sides))
            for text in given.plans:
                rows, cols, lanes = (int(size) for size in text.split(","))
                plan = Plan(rows, cols, lanes)
                if given.simulate:
                    simulate(graph, plan)
                row = (name, str(bits), f"{rows} x {cols}, {lanes}", *cells(schedule(graph, plan)))
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
