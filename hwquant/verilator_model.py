"""Compile Verilog into a Verilator model, once for all designs of the same text.

A model is an executable that reads its memory images when it starts, so it serves every network
whose Verilog is the same: weights may differ. Models are kept in ``models`` of the cache directory,
each under the hash of all that it was made from.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from cocotb_tools import config
from cocotb_tools.runner import get_runner

from hwquant.errors import ToolFailed
from hwquant.file_cache import cache_directory, fetch, keep
from hwquant.toolchain import last_words, verilator_version

# What Verilator says about Amaranth's Verilog: widths that Verilog's own rules extend or cut, and
# case statements that rely on the assignment before them or on the order of their patterns.
WAIVED = (
    "WIDTHEXPAND",
    "WIDTHTRUNC",
    "UNUSEDSIGNAL",
    "PROCASSINIT",
    "DECLFILENAME",
    "CASEINCOMPLETE",
    "CASEOVERLAP",
)

# Of yosys' models of cells, and of a netlist: it says timing left out, ports that synthesis leaves
# open, our model in the place of a black box, constructs that cost simulation speed.
_UNSAID = "SPECIFYIGN PINMISSING MODDUP INITIALDLY COMBDLY UNOPTFLAT TIMESCALEMOD MULTIDRIVEN"
CELL_OPTIONS = ("-DNO_INCLUDES", *(f"-Wno-{rule}" for rule in _UNSAID.split()))

_PORTS = ("clk", "rst", "i__*", "o__*", "weights__*", "status__layer")

# Two-state simulation from known values. The runner's own --public-flat-rw would make every signal
# public, which costs 5 to 18 times in speed; only the ports need to be.
_OPTIONS = ("--no-public-flat-rw", "-O3", "--x-assign", "fast", "--x-initial", "fast")

# A large model compiles twice as fast in pieces, a small one faster in one.
_LARGE = 500_000  # characters of Verilog
_PIECES = ("--output-split", "4000", "--output-split-cfuncs", "1000")

_KEPT = 1 << 29  # bytes of models in the cache; that of 16 x 16 MACs has 2**20


def build_model(
    sources: Sequence[Path], top: str, folder: Path, options: Sequence[str] = ()
) -> Path:
    """Return the folder, inside ``folder``, of an executable ``top`` made from Verilog files.

    It comes from the cache if one was made from the same text with the same tools. The files may
    include those beside them that end in ``.vh``, and no others.

    Raises
    ------
    MissingTool
        If there is no Verilator.
    ToolFailed
        If the Verilog does not compile: Verilator's own words, and the path of ``build.log``.
    """
    control = folder / "ports.vlt"
    rules = [f"lint_off -rule {rule}" for rule in WAIVED]
    public = [f'public_flat_rw -module "{top}" -var "{port}"' for port in _PORTS]
    control.write_text("\n".join(["`verilator_config", *rules, *public]) + "\n")
    is_large = sum(source.stat().st_size for source in sources) > _LARGE
    options = [*_OPTIONS, *options, *(_PIECES if is_large else ())]
    build, log = folder / "build", folder / "build.log"
    included = sorted({file for source in sources for file in source.parent.glob("*.vh")})
    key = _key([control, *sources, *included], [top, *options])
    kept = cache_directory(os.environ) / "models" / key
    shutil.rmtree(build, ignore_errors=True)
    log.unlink(missing_ok=True)
    build.mkdir()
    if fetch(kept, build / top):
        return build
    try:
        get_runner("verilator").build(
            sources=[control, *sources],
            hdl_toplevel=top,
            build_dir=build,
            includes=sorted({file.parent for file in included}),
            build_args=options,
            always=True,
            log_file=log,
        )
    except (RuntimeError, SystemExit):
        raise ToolFailed(f"Verilator: {last_words(log)}; see {log}") from None
    keep(build / top, kept, _KEPT)
    return build


def _key(files: Sequence[Path], options: Sequence[str]) -> str:
    """Hash all that a model depends on; a name's suffix tells Verilator the language."""
    texts = [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
    tools = [verilator_version(), importlib.metadata.version("cocotb"), str(config.libs_dir)]
    key = json.dumps([texts, list(options), tools, platform.platform()])
    return hashlib.sha256(key.encode()).hexdigest()
