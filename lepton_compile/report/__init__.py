"""The report of a build: ``report.json`` for machines, ``report.html`` for people.

Both stand in the artifact, outside its digests: nothing is loaded from them. The page is one file
without scripts or outside assets, so that it opens from a build server's attachments.
"""

from __future__ import annotations

from lepton_compile.report.data import report_data
from lepton_compile.report.page import render
from lepton_compile.report.refusals import refusal_groups
from lepton_compile.report.tactics import tactic_sections
from lepton_compile.report.write import add_bench, write_pages, write_report

__all__ = [
    "add_bench",
    "refusal_groups",
    "render",
    "report_data",
    "tactic_sections",
    "write_pages",
    "write_report",
]
