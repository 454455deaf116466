"""What verification found: frozen data, ready for JSON."""

from __future__ import annotations

from dataclasses import dataclass

from lepton_compile.numerics.metrics import Difference, plain

__all__ = ["OutputReport", "VerifyReport"]


@dataclass(frozen=True)
class OutputReport:
    """One output of the engine against the reference.

    Attributes:
        name: the output.
        difference: errors and cosine, over real tokens only.
        argmax_agreement: part of the rows with the same best entry, or of the pairs of texts in the
            same order where a text has one score; None where rows are not scores.
        argmax_rows: rows or pairs that ``argmax_agreement`` counts.
        ties: rows that agree because the two entries are a tie in the reference.
    """

    name: str
    difference: Difference
    argmax_agreement: float | None = None
    argmax_rows: int = 0
    ties: int = 0

    def as_dict(self) -> dict[str, object]:
        """The report as JSON-ready data."""
        return {
            "name": self.name,
            **self.difference.as_dict(),
            "argmax_agreement": self.argmax_agreement,
            "argmax_rows": self.argmax_rows,
            "ties": self.ties,
        }


@dataclass(frozen=True)
class VerifyReport:
    """An engine against the fp32 PyTorch model.

    Attributes:
        task: task of the model.
        precision: precision of the engine; it chooses the default demands.
        sample: what the engine was fed, in words.
        segments: texts or pictures fed.
        tokens: real tokens fed; 0 of pictures.
        outputs: one report per output.
        embedding: name of the output that stands for the text, for feature extraction.
        perplexity: of the engine on the sample; None for tasks without one.
        reference_perplexity: of the reference on the same tokens.
        decode_tokens: tokens generated greedily, through the cache.
        decode_agreement: part of them that the reference would have chosen after the same prefix.
        seconds: time taken by engine and reference together.
    """

    task: str
    precision: str
    sample: str
    segments: int
    tokens: int
    outputs: tuple[OutputReport, ...]
    embedding: str | None = None
    perplexity: float | None = None
    reference_perplexity: float | None = None
    decode_tokens: int = 0
    decode_agreement: float | None = None
    seconds: float = 0.0

    @property
    def relative_error(self) -> float:
        """The largest relative error of any output."""
        return max(output.difference.relative for output in self.outputs)

    @property
    def argmax_agreement(self) -> float | None:
        """The lowest agreement of any output with scores, decoding included."""
        rates = [output.argmax_agreement for output in self.outputs]
        found = [rate for rate in (*rates, self.decode_agreement) if rate is not None]
        return min(found, default=None)

    @property
    def cosine(self) -> float:
        """Mean cosine of the embedding where there is one, else of the worst output."""
        chosen = [o for o in self.outputs if o.name == self.embedding] or self.outputs
        return min(output.difference.cosine for output in chosen)

    @property
    def perplexity_increase(self) -> float | None:
        """How much the perplexity rose: 0.01 is 1 %; negative when it fell."""
        if self.perplexity is None or not self.reference_perplexity:
            return None
        return self.perplexity / self.reference_perplexity - 1.0

    @property
    def not_finite(self) -> int:
        """Infinite or NaN numbers that only one side has."""
        return sum(output.difference.not_finite for output in self.outputs)

    def as_dict(self) -> dict[str, object]:
        """The report as JSON-ready data, the summary numbers included."""
        rise = self.perplexity_increase
        return {
            "task": self.task,
            "precision": self.precision,
            "sample": self.sample,
            "segments": self.segments,
            "tokens": self.tokens,
            "outputs": [output.as_dict() for output in self.outputs],
            "embedding": self.embedding,
            "relative_error": plain(self.relative_error),
            "argmax_agreement": self.argmax_agreement,
            "cosine": plain(self.cosine),
            "perplexity": None if self.perplexity is None else plain(self.perplexity),
            "reference_perplexity": self.reference_perplexity,
            "perplexity_increase": None if rise is None else plain(rise),
            "decode_tokens": self.decode_tokens,
            "decode_agreement": self.decode_agreement,
            "not_finite": self.not_finite,
            "seconds": round(self.seconds, 3),
        }
