"""The emitted Verilog is clean under every warning of Verilator but for the waivers of cosim."""

from pathlib import Path

import pytest

from hwquant.cosim import WAIVED
from hwquant.toolchain import run_tool, verilator_env

pytestmark = pytest.mark.cosim

RTL = Path(__file__).resolve().parents[1] / "rtl"
DESIGNS = sorted(path.parent for path in RTL.glob("*/design.json"))


@pytest.mark.parametrize("design", DESIGNS, ids=lambda path: path.name)
def test_reference_designs_are_lint_clean(design: Path, tmp_path: Path) -> None:
    waivers = tmp_path / "waivers.vlt"
    rules = [f"lint_off -rule {rule}" for rule in WAIVED]
    waivers.write_text("\n".join(["`verilator_config", *rules]) + "\n")
    log = tmp_path / "lint.log"
    run_tool(
        ["verilator", "--lint-only", "-Wall", str(waivers), "accelerator.v"],
        log=log,
        cwd=design / "rtl",
        env=verilator_env(),
    )
    assert "%Warning" not in log.read_text()
