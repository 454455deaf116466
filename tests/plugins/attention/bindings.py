"""The bindings of TensorRT 11, where ``LEPTON_TENSORRT_WHEEL`` names a wheel of them.

pip download --no-deps -d /tmp/wheels tensorrt-cu13-bindings==11.4.0.106
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

__all__ = ["needs_bindings", "run_bindings"]

WHEEL = os.environ.get("LEPTON_TENSORRT_WHEEL", "")

needs_bindings = pytest.mark.skipif(
    not WHEEL or not shutil.which("gcc"),
    reason="needs LEPTON_TENSORRT_WHEEL, a wheel of tensorrt-cu13-bindings, and gcc",
)


def run_bindings(face: str, jobs: list[Any]) -> list[dict[str, Any]]:
    """What the bindings made of each job, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.plugins.attention.bindings_child", WHEEL, face],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return seen
