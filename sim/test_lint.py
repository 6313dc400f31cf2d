"""The emitted Verilog is clean under every warning of Verilator but those that are waived."""

from pathlib import Path

import numpy as np
import pytest

from hwquant.emit import emit
from hwquant.quantizer.config import QuantConfig
from hwquant.quantizer.quantize import quantize
from hwquant.scheduler.plan import Plan, with_stream
from hwquant.toolchain import run_tool, verilator_env
from hwquant.verilator_model import WAIVED
from tests.float_graphs import NETWORKS
from tests.float_graphs import graph as float_graph
from tests.placeable import placeable_graph
from tests.random_graphs import Limits

pytestmark = pytest.mark.cosim

RTL = Path(__file__).resolve().parents[1] / "rtl"
DESIGNS = sorted(path.parent for path in RTL.glob("*/design.json"))


@pytest.mark.parametrize("design", DESIGNS, ids=lambda path: path.name)
def test_reference_designs_are_lint_clean(design: Path, tmp_path: Path) -> None:
    assert_clean(design, tmp_path)


@pytest.mark.parametrize(
    "want",
    [
        "packed from the edge",
        "windows from the edge",
        "windows of lines",
        "detailed residual",
        "detailed gate",
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_designs_are_lint_clean(want: str, seed: int, tmp_path: Path) -> None:
    rng, plan = np.random.default_rng(seed), Plan(4, 8, 2)
    graph = placeable_graph(rng, Limits(layers=3, channels=7, size=6), plan, wants={want})
    emit(graph, plan, tmp_path)
    assert_clean(tmp_path, tmp_path)


@pytest.mark.parametrize("bits", [1, None])
def test_designs_with_streamed_weights_are_lint_clean(bits: int | None, tmp_path: Path) -> None:
    rng, plan = np.random.default_rng(1), Plan(4, 8, 2, stream_bits=1)
    limits = Limits(layers=3, channels=20, size=6)
    graph = placeable_graph(rng, limits, plan, wants={"gate", "tiles"})
    emit(graph, with_stream(plan, graph, bits), tmp_path)
    assert_clean(tmp_path, tmp_path)


@pytest.mark.parametrize("device", ["xc7a100t", "ice40up5k"])
def test_designs_in_dsp_blocks_are_lint_clean(device: str, tmp_path: Path) -> None:
    graph = quantize(float_graph(*NETWORKS["residual"]), QuantConfig())
    emit(graph, Plan(4, 8, 2, device, products="dsp"), tmp_path)
    assert_clean(tmp_path, tmp_path, "-Wno-MODMISSING", "-Wno-UNDRIVEN")  # the blocks themselves


def assert_clean(design: Path, folder: Path, *options: str) -> None:
    """Lint the Verilog of a design; the log goes to ``folder``."""
    waivers = folder / "waivers.vlt"
    rules = [f"lint_off -rule {rule}" for rule in WAIVED]
    waivers.write_text("\n".join(["`verilator_config", *rules]) + "\n")
    log = folder / "lint.log"
    run_tool(
        ["verilator", "--lint-only", "-Wall", *options, str(waivers), "accelerator.v"],
        log=log,
        cwd=design / "rtl",
        env=verilator_env(),
    )
    assert "%Warning" not in log.read_text()
