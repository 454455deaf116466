"""The assembler: PTX to a cubin, and what it says of registers, spills and shared memory."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lepton_plugins.spec import PluginError

__all__ = ["Assembly", "assemble", "assembler", "assembler_version"]


@dataclass(frozen=True)
class Assembly:
    """A cubin, for ``target`` such as ``sm_90a``, and the PTX that it was made of."""

    ptx: str
    cubin: bytes
    target: str
    registers: int
    spill_bytes: int


@functools.cache
def assembler() -> Path:
    """ptxas: Triton's own, as its version goes with the code that Triton writes; else the system's.

    Raises:
        PluginError: there is none.
    """
    triton = find_spec("triton")
    for root in (triton.submodule_search_locations or []) if triton else []:
        bundled = Path(root) / "backends" / "nvidia" / "bin" / "ptxas"
        if bundled.is_file():
            return bundled
    found = shutil.which("ptxas") or shutil.which("/usr/local/cuda/bin/ptxas")
    if found is None:
        hint = "pip install 'lepton-compile[plugins]'"
        raise PluginError("ptxas is not installed", hint=hint)
    return Path(found)


@functools.cache
def assembler_version() -> str:
    """As in ``12.9.86``."""
    command = [str(assembler()), "--version"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"V(\d+\.\d+\.\d+)", text)
    return found[1] if found else text.strip()


def assemble(ptx: str, name: str) -> Assembly:
    """Assemble ``ptx`` for the architecture that its ``.target`` line names.

    Raises:
        PluginError: ptxas declines; its words are in ``found``.
    """
    target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    assert target is not None
    with tempfile.TemporaryDirectory() as folder:
        # Relative names, so that nothing of this machine can end up in the cubin.
        (Path(folder) / "kernel.ptx").write_text(ptx)
        command = [str(assembler()), "-v", f"--gpu-name={target[1]}", "kernel.ptx", "-o", "kernel"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            words = (done.stderr or done.stdout).strip()
            raise PluginError("ptxas declines", where=f"{name}, {target[1]}", found=words[:2000])
        cubin = (Path(folder) / "kernel").read_bytes()
    log = done.stderr + done.stdout
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    registers = re.search(r"Used (\d+) registers", log)
    if spills is None or registers is None:
        raise PluginError("ptxas says nothing of registers and spills", found=log[:2000])
    stores, loads = map(int, spills.groups())
    return Assembly(ptx, cubin, target[1], int(registers[1]), stores + loads)
