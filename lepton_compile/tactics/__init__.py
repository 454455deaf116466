"""Kernels chosen by time: candidates for each kind of quantized linear layer run on this machine.

``table.py`` joins the parts: ``phases.py`` says what a recipe wants to be fast, ``candidates.py``
lowers a layer with each kernel and runs it, ``measure.py`` takes times and errors, ``choose.py``
decides, ``store.py`` keeps what was measured on this machine (``machine.py``).
"""

from __future__ import annotations

from lepton_compile.tactics.machine import Machine, this_machine
from lepton_compile.tactics.measure import Bench
from lepton_compile.tactics.phases import Wanted, wanted_of
from lepton_compile.tactics.store import Store, tactics_folder
from lepton_compile.tactics.table import NEEDED, Tactics

__all__ = [
    "NEEDED",
    "Bench",
    "Machine",
    "Store",
    "Tactics",
    "Wanted",
    "tactics_folder",
    "this_machine",
    "wanted_of",
]
