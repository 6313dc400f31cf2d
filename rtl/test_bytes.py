"""The committed Verilog is what the generator writes: a review sees what a change did to it."""

import json
from pathlib import Path

import pytest

from hwquant import model_file
from hwquant.emit import emit
from hwquant.scheduler.plan import Plan

HERE = Path(__file__).parent
DESIGNS = sorted(path.parent for path in HERE.glob("*/design.json"))


def test_there_are_reference_designs() -> None:
    assert len(DESIGNS) >= 3


@pytest.mark.parametrize("committed", DESIGNS, ids=lambda path: path.name)
def test_generator_writes_the_committed_bytes(committed: Path, tmp_path: Path) -> None:
    plan = json.loads((committed / "design.json").read_text())["plan"]
    plan.pop("macs_per_cycle")
    emit(model_file.load(committed / "model.hwq"), Plan(**plan), tmp_path)
    files = sorted(p.relative_to(committed) for p in committed.rglob("*") if p.is_file())
    written = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert written == files
    different = [
        str(f) for f in files if (committed / f).read_bytes() != (tmp_path / f).read_bytes()
    ]
    assert not different, f"{different}: run scripts/renew_rtl.py and read the difference"
