"""Where the adapter of a model is: a folder of PEFT's, or a repository of the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lepton_compile.arguments import placed
from lepton_compile.errors import SourceError
from lepton_compile.export.checkpoint.adapted import ADAPTER_WEIGHTS
from lepton_compile.export.checkpoint.adapter_settings import ADAPTER_CONFIG, read_settings
from lepton_compile.export.source.address import refuse_address
from lepton_compile.export.source.folder import PICKLE_ENDINGS, pickled
from lepton_compile.export.source.hub import download

__all__ = ["Adapter", "locate_adapter"]

FORMS = ("hf:org/name@commit", "a folder that PEFT's save_pretrained wrote")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter that was found.

    Attributes:
        spec: what the recipe said.
        path: its folder.
        revision: hub commit; None for a plain folder.
    """

    spec: str
    path: Path
    revision: str | None = None

    def files(self) -> list[Path]:
        """What a build reads of it."""
        return [self.path / ADAPTER_CONFIG, self.path / ADAPTER_WEIGHTS]


def locate_adapter(spec: str, base: Path, *, weights: bool) -> Adapter:
    """Find an adapter and check that it can be merged. Reads no weights.

    Args:
        spec: the recipe's ``adapter``: ``hf:org/name@commit`` or a folder.
        base: folder that a relative path starts from.
        weights: they have to be there.

    Raises:
        SourceError: there is none, its weights are pickled, or it is of a kind that is not merged.
    """
    scheme, _, rest = spec.partition(":")
    if scheme == "hf":
        path, revision = download(rest, weights=weights, adapter=True)
    else:
        refuse_address(spec, FORMS)
        path, revision = placed(spec, base, "adapter"), None
    if not path.is_dir():
        raise SourceError(
            "The adapter is not a folder." if path.exists() else "The adapter does not exist.",
            found=str(path),
            available=FORMS,
        )
    read_settings(path)
    if weights and not (path / ADAPTER_WEIGHTS).is_file():
        pickles = sorted(p.name for p in path.iterdir() if p.name.endswith(PICKLE_ENDINGS))
        if pickles:
            raise pickled(str(path), pickles)
        raise SourceError(
            "The adapter has no weights.",
            where=str(path),
            available=sorted(p.name for p in path.iterdir())[:20],
            hint=f"Expected {ADAPTER_WEIGHTS}; PEFT's save_pretrained writes it.",
        )
    return Adapter(spec, path, revision)
