"""Find nextpnr and the programs that pack what it routed into a bitstream, and run them."""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hwquant.errors import MissingTool
from hwquant.toolchain import asked_version, dots, run_tool

Fabric = Literal["ecp5", "ice40"]
_PACKERS: dict[Fabric, str] = {"ecp5": "ecppack", "ice40": "icepack"}


def run_nextpnr(
    fabric: Fabric, arguments: Sequence[str], *, log: Path, cwd: Path | None = None
) -> None:
    """Run nextpnr with these arguments, output in ``log``."""
    run_tool([_found(f"nextpnr-{fabric}", fabric), *arguments], log=log, cwd=cwd)


def run_packer(fabric: Fabric, routed: str, packed: str, *, log: Path, cwd: Path) -> None:
    """Pack the file ``routed`` into a bitstream, both in ``cwd``."""
    run_tool([_found(_PACKERS[fabric], fabric), routed, packed], log=log, cwd=cwd)


def nextpnr_version(fabric: Fabric) -> str:
    """Return nextpnr's version, like ``"0.11.1"``."""
    executable = _found(f"nextpnr-{fabric}", fabric)
    if Path(executable).name.startswith("yowasp"):
        return ".".join(importlib.metadata.version(_package(fabric)).split(".")[:3])
    return dots(asked_version([executable, "--version"], r"nextpnr-(\d+)\.(\d+)"))


def _package(fabric: Fabric) -> str:
    return f"yowasp-nextpnr-{fabric}"


def _found(tool: str, fabric: Fabric) -> str:
    """Return the path of a tool: the wheel's beside this interpreter, or one on ``PATH``."""
    beside = str(Path(sys.executable).parent)
    path = f"{beside}{os.pathsep}{os.environ.get('PATH', '')}"
    for name in (f"yowasp-{tool}", tool):
        executable = shutil.which(name, path=path)
        if executable:
            return executable
    raise MissingTool(f"{tool} is missing: pip install {_package(fabric)}")
