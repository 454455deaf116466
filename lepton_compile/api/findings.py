"""What a build finds out, stage by stage: its report, also where a demand was missed.

A build that misses a demand, or whose passes do not go through, leaves no artifact. What it
measured stays beside the place where the artifact would have stood, in ``<output>.failed.json`` and
``<output>.failed.html``, until a build of that output succeeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_compile.api.changes import Changes
from lepton_compile.api.verification import Verified
from lepton_compile.errors import LeptonError
from lepton_compile.export import ExportedModel
from lepton_compile.pipeline import PipelineReport
from lepton_compile.tactics import Tactics

__all__ = ["Findings", "failed_files", "forget_failure", "keep_failure"]


@dataclass
class Findings:
    """Everything a report is made of, as far as the build has come.

    Attributes:
        seconds: wall time by stage.
        model: the manifest's entry of the model.
        base: folder that a relative path to the model starts from. In the report alone: a recipe
            gives the same artifact wherever it lies.
        exported: the captured model; ``ranges`` of its dimensions.
        passes: by target, also of a target whose demands were missed.
        tactics: by target, what kernels were chosen by.
        choices: by target, what ``quantize: auto`` chose there, and what it costs.
        builders: what the builder of each target has to say.
        verified: engines that were compared with PyTorch.
        manifest: as it was sealed; None before that.
        remarks: what was left out that is done by default, and why.
        changes: of a build that repeats an earlier one, what is other than it was then.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    base: str = ""
    exported: ExportedModel | None = None
    ranges: Mapping[str, Any] = field(default_factory=dict)
    passes: dict[str, PipelineReport] = field(default_factory=dict)
    tactics: dict[str, Tactics] = field(default_factory=dict)
    choices: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    builders: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    verified: Sequence[Verified] = ()
    manifest: Mapping[str, Any] | None = None
    remarks: list[str] = field(default_factory=list)
    changes: Changes = field(default_factory=dict)

    def parts(self) -> dict[str, Any]:
        """The arguments of ``report_data`` beside the manifest."""
        e, first = self.exported, next(iter(self.verified), None)
        return {
            "seconds": self.seconds,
            "capture": {"how": e.how, "kinds": e.kinds, "notes": e.notes, "base": self.base}
            if e
            else {},
            "passes": [
                {**entry, "target": target}
                for target, report in self.passes.items()
                for entry in report.as_dict()
            ],
            "tactics": [{"target": name, **each.report()} for name, each in self.tactics.items()],
            "choices": self.choices,
            "builders": {name: dict(said) for name, said in self.builders.items() if said},
            "verify": first.as_dict() if first else None,
            "gates": [check.as_dict() for check in first.gates] if first else (),
            "also_verified": [each.as_dict() for each in self.verified[1:]],
            "remarks": self.remarks,
        }

    def tactics_entry(self, target: str) -> dict[str, Any]:
        """``tactics`` of an engine in the manifest, where anything was measured for it."""
        entry = self.tactics[target].entry() if target in self.tactics else None
        return {} if entry is None else {"tactics": entry}

    def described(self) -> Mapping[str, Any]:
        """The manifest, or what of it is known before there is one."""
        if self.manifest is not None:
            return self.manifest
        return {
            "task": self.exported.task if self.exported else None,
            "model": self.model,
            "engines": [],
            "ranges": self.ranges,
            "files": {},
        }


def failed_files(output: Path) -> tuple[Path, Path]:
    """Where the report of a build that failed stands: JSON and page."""
    stem = f"{output.name}.failed"
    return output.with_name(f"{stem}.json"), output.with_name(f"{stem}.html")


def keep_failure(output: Path, findings: Findings, error: LeptonError) -> None:
    """Write the report of a missed demand or a failed pass; the error carries it and names the
    page."""
    from lepton_compile.report import report_data, write_pages

    if findings.exported is None:  # nothing was found out
        return
    data = report_data(findings.described(), failure=error.as_dict(), **findings.parts())
    error.report = data
    with suppress(OSError):  # what failed is what to tell, not the disk
        # Gone again with the build that had made it.
        output.parent.mkdir(parents=True, exist_ok=True)
        write_pages(data, *failed_files(output))
        told = f"{failed_files(output)[1]} has what was measured"
        error.hint = f"{told}; {error.hint}" if error.hint else told


def forget_failure(output: Path) -> None:
    """Remove what an earlier build of this output left: this one succeeded."""
    for path in failed_files(output):
        path.unlink(missing_ok=True)
