"""What an engine of each precision must keep of the fp32 model: one table, no global default.

The reference is always the fp32 PyTorch model. A row of the table names a precision and a family of
tasks; a number that is ``None`` is reported and not demanded. The names are those of a recipe's
``gates``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lepton_compile.errors import UsageError

__all__ = ["GENERATING", "TOLERANCES", "Tolerance", "family_of", "tolerance_for"]

GENERATING = (
    *("text-generation", "text2text-generation"),
    *("automatic-speech-recognition", "image-text-to-text"),
)
EMBEDDINGS = (
    *("feature-extraction", "image-feature-extraction"),
    *("multi-vector-embedding", "sparse-embedding"),
)


@dataclass(frozen=True)
class Tolerance:
    """Demands on the numbers of an engine.

    Attributes:
        max_error: largest absolute error of any output, as a part of the output's range.
        argmax: part of the rows of logits whose best entry is unchanged, at least.
        cosine: mean cosine similarity to the reference, at least, for the embeddings.
        perplexity: rise of the perplexity over the reference's, at most (0.01 is 1 %).
    """

    max_error: float | None = None
    argmax: float | None = None
    cosine: float | None = None
    perplexity: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """The demands by name."""
        return asdict(self)


_EXACT = {
    "decoder": Tolerance(max_error=1e-3, argmax=1.0, perplexity=1e-3),
    "embedding": Tolerance(max_error=1e-3, cosine=0.99999),
    "classifier": Tolerance(max_error=1e-3, argmax=1.0),
}
_HALF = {
    "decoder": Tolerance(max_error=5e-2, argmax=0.98, perplexity=0.005),
    "embedding": Tolerance(max_error=5e-2, cosine=0.999),
    "classifier": Tolerance(max_error=5e-2, argmax=0.98),
}

_EIGHT = {
    "decoder": Tolerance(perplexity=0.01),
    "embedding": Tolerance(cosine=0.995),
    "classifier": Tolerance(argmax=0.9),
}

TOLERANCES: Mapping[str, Mapping[str, Tolerance]] = {
    "fp32": _EXACT,
    "fp16": _HALF,
    "bf16": _HALF,
    "int8": _EIGHT,
    "fp8": _EIGHT,
    "int4": {
        "decoder": Tolerance(perplexity=0.06),
        "embedding": Tolerance(cosine=0.95),
        "classifier": Tolerance(argmax=0.8),
    },
    "auto": {
        "decoder": Tolerance(perplexity=0.04),
        "embedding": Tolerance(cosine=0.995),
        "classifier": Tolerance(argmax=0.9),
    },
    "stored": _EIGHT,
}


def family_of(task: str) -> str:
    """The row family of a task: decoder, embedding or classifier."""
    if task in GENERATING:
        return "decoder"
    return "embedding" if task in EMBEDDINGS else "classifier"


def tolerance_for(precision: str, task: str) -> Tolerance:
    """The demands on an engine of this precision for this task.

    Raises:
        UsageError: a precision that the table does not hold.
    """
    name = "fp32" if precision == "none" else precision
    if name not in TOLERANCES:
        raise UsageError(
            "no tolerance is declared for this precision",
            found=precision,
            available=tuple(TOLERANCES),
            hint="state the demands under `gates:` of the recipe, or verify with one of these",
        )
    return TOLERANCES[name][family_of(task)]
