"""One measured case: the engine's figures beside those of PyTorch eager."""

from __future__ import annotations

from dataclasses import dataclass

from lepton_compile.numerics.bench.timing import Timing

__all__ = ["Case"]


@dataclass(frozen=True)
class Case:
    """A shape or a phase.

    Attributes:
        name: such as ``1x128`` or ``decode 128``.
        engine: percentiles of the engine.
        eager: percentiles of PyTorch eager on the same input, taken in turn; None when not run.
        tokens: tokens that one run handles; 0 where a rate means nothing.
        rows: texts that one run handles; 0 where a run is a part of one.
    """

    name: str
    engine: Timing
    eager: Timing | None = None
    tokens: int = 0
    rows: int = 0

    @property
    def speedup(self) -> float | None:
        """Median of eager over median of the engine: above 1 the engine is faster."""
        return self.eager.p50 / self.engine.p50 if self.eager else None

    def rate(self, timing: Timing | None) -> float | None:
        """Tokens per second at the median."""
        return self.tokens / timing.p50 * 1e3 if timing and self.tokens else None

    def row_rate(self, timing: Timing | None) -> float | None:
        """Texts per second at the median."""
        return self.rows / timing.p50 * 1e3 if timing and self.rows else None

    def as_dict(self) -> dict[str, object]:
        """The case as JSON-ready data."""
        return {
            "name": self.name,
            "engine_ms": self.engine.as_dict(),
            "eager_ms": self.eager.as_dict() if self.eager else None,
            "speedup": self.speedup,
            "engine_tokens_per_second": self.rate(self.engine),
            "eager_tokens_per_second": self.rate(self.eager),
            "engine_rows_per_second": self.row_rate(self.engine),
            "eager_rows_per_second": self.row_rate(self.eager),
        }
