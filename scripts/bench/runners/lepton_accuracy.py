"""lepton-compile: what ``lepton-compile verify`` measures, whether or not a gate is met."""

from __future__ import annotations

from typing import Any

from protocol import serve


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """The engine in ``work`` against fp32 PyTorch on the text that ships with the package."""
    from lepton_compile import GateError, verify

    try:
        engines = verify(job["work"], threads=job["threads"]).as_dict()["engines"]
    except GateError as error:
        engines = dict(error.report or {})["engines"]
    return dict(engines[0])


if __name__ == "__main__":
    serve(measure=measure)
