"""Time the tools on a network: gen, the Verilator build, a simulated frame, a bare C++ loop.

python scripts/bench_tools.py ../shared/models/mlperf_ic_resnet8.onnx   # docs/reports.md
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwquant import cosim, golden, packaged
from hwquant.emit import emit
from hwquant.estimate import estimate
from hwquant.fit import choose_plan
from hwquant.importer.load import load
from hwquant.ir import Layer, MacLayer
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.plan import Plan
from hwquant.toolchain import run_tool, verilator_env

FRAMES = 6
LOOP = """
#include "Vtop.h"
double sc_time_stamp() { return 0; }
int main(int, char** argv) {
  Vtop top; top.o___05Fready = 1; top.i___05Fvalid = 1;
  for (long cycle = 0; cycle < atol(argv[1]); ++cycle) {
    top.rst = cycle < 4; top.i___05Fpayload = cycle * 2654435761;
    for (int clk : {1, 0}) { top.clk = clk; top.eval(); }
  }
}
"""


@contextlib.contextmanager
def timed(what: str) -> Iterator[list[float]]:
    """Print a row of the table, seconds and those of all cores together; lend the latter."""
    before, start, spent = os.times(), time.perf_counter(), list[float]()
    yield spent
    spent.append(sum(os.times()[:4]) - sum(before[:4]))
    print(f"| {what} | {time.perf_counter() - start:.1f} | {spent[0]:.1f} |", flush=True)


def loop_seconds(build: Path, rtl: Path, cycles: int) -> float:
    """Drive the model that cocotb drives from a C++ loop, frame after frame."""
    (build / "loop.cpp").write_text(LOOP)
    include = Path(verilator_env()["VERILATOR_ROOT"]) / "include"
    folders = [f"-I{folder}" for folder in (build, include, include / "vltstd")]
    objects = [str(file) for found in ("*.a", "verilated*.o") for file in build.glob(found)]
    command = ["g++", "-O2", "-std=c++20", *folders, "loop.cpp", *objects, "-pthread", "-oloop"]
    run_tool(command, log=build / "loop.log", cwd=build)
    with timed("the same in a bare C++ loop") as seconds:
        run_tool([str(build / "loop"), str(cycles)], log=build / "run.log", cwd=rtl)
    return seconds[0]


def mirrored(la: Layer) -> Layer:
    """Mirror the kernels: other memory images, the same Verilog."""
    return replace(la, weights=la.weights[..., ::-1]) if isinstance(la, MacLayer) else la


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, default=packaged.model_path())
    parser.add_argument("--device", default="lfe5u-25f")
    given = parser.parse_args()
    print("| | s | CPU s |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as name, timed(f"gen --device {given.device}"):
        graph = quantize(load(given.model), QuantConfig())
        chosen = choose_plan(graph, given.device)
        estimate(graph, emit(graph, chosen, Path(name)), given.device)
    images = np.random.default_rng(0).integers(0, 256, (FRAMES, *graph.input.shape))
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        os.environ |= {"XDG_CACHE_HOME": first, "CCACHE_DISABLE": "1"}
        other = replace(graph, layers=tuple(mirrored(layer) for layer in graph.layers))
        for what, network, folder in (
            ("Verilator build, and a frame", graph, Path(first)),
            ("other weights, and a frame", other, Path(second)),
        ):
            program = emit(network, Plan(16, 16, 4), folder)
            values = golden.simulate(network, images).transpose(0, 2, 3, 1).reshape(FRAMES, -1)
            with timed(what) as of_one:
                assert cosim.verify(folder, images[:1], values[:1]).mismatches == 0
        with timed(f"{FRAMES} frames") as of_all:
            assert cosim.verify(folder, images, values).mismatches == 0
        cycles = (FRAMES - 1) * program.cycles
        bare = loop_seconds(Path(first) / "sim" / "build", Path(first) / "rtl", cycles)
    with_cocotb = of_all[0] - of_one[0]
    print(f"\nCycles a CPU second: {cycles / with_cocotb:,.0f}, {cycles / bare:,.0f} in the loop")


if __name__ == "__main__":
    main()
