"""PTX as it comes from Triton, made plain: the contract's parameters and nothing of this machine.

Triton gives every kernel two more pointers, for scratch memory that these kernels do not ask for.
They are taken off, so that whoever launches a kernel passes what the launch contract names. Debug
lines would carry the path of the sources, and are taken off as well.
"""

from __future__ import annotations

import re

from lepton_plugins.spec import PluginError

__all__ = ["entry_of", "plain_target", "tidy"]

_ENTRY = re.compile(r"\.visible \.entry (\w+)\(\n(.*?)\n\)", re.DOTALL)
_DEBUG = re.compile(r"^\s*\.(loc|file)\b.*\n", re.MULTILINE)
_DEBUG_SECTION = re.compile(r"^\s*\.section\s+\.debug.*?^\s*\}\s*\n", re.MULTILINE | re.DOTALL)
_TARGET = re.compile(r"^\.target (sm_\d+)a\b", re.MULTILINE)


def entry_of(ptx: str) -> tuple[str, list[str]]:
    """Name of the one kernel in ``ptx``, and the declarations of its parameters.

    Raises:
        PluginError: there is not exactly one.
    """
    found = _ENTRY.findall(ptx)
    if len(found) != 1:
        raise PluginError("PTX holds another number of kernels than one", found=str(len(found)))
    name, body = found[0]
    return name, [line.strip().rstrip(",") for line in body.split("\n")]


def tidy(ptx: str, parameters: int) -> str:
    """``ptx`` with its first ``parameters`` parameters only, without debug information.

    Raises:
        PluginError: a parameter that would go is used, or there are too few.
    """
    name, declared = entry_of(ptx)
    if len(declared) < parameters:
        found = f"{len(declared)} parameters, {parameters} expected"
        raise PluginError("PTX lost a parameter", where=name, found=found)
    body = _ENTRY.sub("", ptx)
    for position in range(parameters, len(declared)):
        if re.search(rf"\b{name}_param_{position}\b", body):
            what = "the kernel wants scratch memory, which nobody would give it"
            raise PluginError(what, where=name, found=declared[position])
    kept = ",\n\t".join(declared[:parameters])
    head = f".visible .entry {name}(\n\t{kept}\n)"
    plain = _ENTRY.sub(lambda _: head, ptx)
    return _DEBUG.sub("", _DEBUG_SECTION.sub("", plain))


def plain_target(ptx: str) -> str:
    """``ptx`` for the plain architecture: later devices may run it, if it assembles."""
    return _TARGET.sub(r".target \1", ptx)
