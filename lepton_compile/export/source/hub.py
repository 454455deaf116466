"""Models of the Hugging Face hub, at a commit.

Only what a compile reads is fetched: safetensors, configuration and tokenizer files. The hub
library's own settings (``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_TOKEN`` ...) hold.
"""

from __future__ import annotations

import re
from pathlib import Path

from lepton_compile.errors import SourceError
from lepton_compile.export.source.address import on_the_hub
from lepton_compile.export.source.folder import PICKLE_ENDINGS, has_weights, pickled

__all__ = ["download"]

PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.spm", "*.jinja")
# Other engines' forms, and the same weights once more under their makers' own names.
IGNORED = ("onnx/*", "openvino/*", "original/*", "consolidated*.safetensors")
SPEC = re.compile(r"^(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?$")


def download(
    spec: str, with_code: bool = False, *, weights: bool = True, adapter: bool = False
) -> tuple[Path, str]:
    """The local snapshot of ``org/name@revision``, and the commit it stands for.

    Args:
        spec: repository, and a commit, branch or tag after ``@``.
        with_code: fetch Python files too, for a model that is trusted to run them.
        weights: fetch them too; otherwise only what a plan reads.
        adapter: it is that of a model, whose own weights are elsewhere.

    Raises:
        SourceError: malformed, no such repository or revision, not in the cache when offline, or
            a repository of pickled weights alone.
    """
    match = SPEC.match(spec)
    if match is None:
        raise SourceError(
            "The hub name is not well formed.",
            found=f"hf:{spec}",
            available=["hf:org/name@commit"],
            hint=on_the_hub(spec),
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                match["name"],
                revision=match["revision"],
                allow_patterns=[*PATTERNS[0 if weights else 1 :], *["*.py"] * with_code],
                ignore_patterns=list(IGNORED),
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise SourceError(
            "The model cannot be fetched from the hub.",
            found=f"hf:{spec}",
            hint="Check the name, the revision and the network; offline, fetch it beforehand with "
            "`hf download`.",
        ) from error
    if weights and not adapter and not has_weights(folder):
        _refuse_pickles(match["name"], folder.name)
    return folder, folder.name


def _refuse_pickles(name: str, commit: str) -> None:
    """Pickles are not fetched: only the hub's own list of files can tell that they are there."""
    from huggingface_hub import list_repo_files

    try:
        files = list_repo_files(name, revision=commit)
    except Exception:  # offline, or any answer of the network: the folder alone is judged then
        return
    if found := [file for file in files if file.endswith(PICKLE_ENDINGS)]:
        raise pickled(f"hf:{name}@{commit}", found)
