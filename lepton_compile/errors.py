"""Every error lepton-compile raises on purpose.

    LeptonError                 catch this one
    ├── UsageError              a command or a call that cannot be carried out as written   (exit 2)
    │   └── RecipeError         the recipe: unknown key, wrong type, impossible combination
    ├── SourceError             the model cannot be found, read or trusted                  (exit 1)
    │   └── CheckpointError     its weights: missing, extra, truncated, of another shape
    ├── ExportError             the model cannot be captured as a graph
    ├── PassError               a pass broke the graph, or was asked for something impossible
    ├── EngineError             the target's builder or runtime refused the graph
    ├── ArtifactError           the artifact folder cannot be written or is not intact
    └── GateError               built, but a number the recipe demands was missed           (exit 3)

A message says what failed; the fields say where, what was found, what was available and what to do
next. They are separate so that the command line can lay them out and ``--json`` can carry them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

__all__ = [
    "ArtifactError",
    "CheckpointError",
    "EngineError",
    "ExportError",
    "GateError",
    "LeptonError",
    "PassError",
    "RecipeError",
    "SourceError",
    "UnrunnableError",
    "UsageError",
    "is_failure",
    "located",
    "told_as",
]


class LeptonError(Exception):
    """Base of every deliberate error.

    Attributes:
        report: what was measured until then, as in ``report.json``; None where nothing was.

    Args:
        message: what failed, one sentence.
        where: where in the recipe or the model, such as ``recipe.yaml:4`` or ``model.layers.3``.
        found: the offending value.
        available: what would have been accepted.
        hint: what to do next.
    """

    exit_code = 1
    report: Mapping[str, object] | None = None

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        found: str | None = None,
        available: Sequence[str] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.found = found
        self.available = tuple(available)
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.found is not None:
            lines.append(f"  found: {self.found}")
        if self.available:
            lines.append(f"  available: {', '.join(self.available)}")
        if self.hint:
            lines.append(f"  next: {self.hint}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """The error as JSON-ready data, for ``--json``, and the report where there is one."""
        found: dict[str, object] = {
            "error": type(self).__name__,
            "message": self.message,
            "where": self.where,
            "found": self.found,
            "available": list(self.available),
            "hint": self.hint,
        }
        return found if self.report is None else {**found, "report": dict(self.report)}


class UsageError(LeptonError):
    """A command or a call that cannot be carried out as written."""

    exit_code = 2


class RecipeError(UsageError):
    """The recipe is wrong: unknown key, wrong type, impossible combination."""


class SourceError(LeptonError):
    """The model cannot be found, read or trusted."""


class UnrunnableError(SourceError):
    """PyTorch does not run the model, so that nothing can be compared with it."""


class CheckpointError(SourceError):
    """The weights are missing, extra, truncated or of another shape."""


class ExportError(LeptonError):
    """The model cannot be captured as a graph."""


class PassError(LeptonError):
    """A pass broke the graph, or was asked for something impossible.

    Attributes:
        error: how far the pass moved the numbers, where that was too far.
    """

    error: float | None = None


class EngineError(LeptonError):
    """The target's builder or runtime refused the graph."""


class ArtifactError(LeptonError):
    """The artifact folder cannot be written, or is not intact."""


class GateError(LeptonError):
    """The build finished, but a number that the recipe demands was missed."""

    exit_code = 3


def is_failure(error: BaseException) -> bool:
    """Whether something went wrong, rather than somebody asking the program to end. A library in
    Rust that panics raises something that is no ``Exception``."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


@contextmanager
def told_as(ours: Callable[[BaseException], LeptonError]) -> Iterator[None]:
    """What goes wrong inside (``is_failure``) becomes the error that ``ours`` makes of it."""
    try:
        yield
    except BaseException as error:
        if not is_failure(error):
            raise
        raise ours(error) from error


@contextmanager
def located(where: object) -> Iterator[None]:
    """Gives each error of ours that passes through without a place the place ``where``."""
    try:
        yield
    except LeptonError as error:
        error.where = error.where or str(where)
        raise
