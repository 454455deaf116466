"""lepton-compile: what ``lepton-compile verify`` measures, whether or not a gate is met."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from protocol import serve


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """The engine in ``work`` against fp32 PyTorch on the text that ships with the package."""
    from lepton_compile.cli.opened import precision_of, reference_of, source_of
    from lepton_compile.numerics import verify
    from lepton_compile.runtime import load

    model = load(Path(job["work"]), threads=job["threads"])
    source = source_of(model.manifest, None)
    precision = precision_of(model.manifest, model.target)
    reference, tokenizer = reference_of(source, model.task), source.tokenizer()
    report = verify(model, reference, tokenizer, model.task, precision=precision)
    return dict(report.as_dict())


if __name__ == "__main__":
    serve(measure=measure)
