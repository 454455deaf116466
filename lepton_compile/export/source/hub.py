"""Models of the Hugging Face hub, at a commit.

Only what a compile reads is fetched: safetensors, configuration and tokenizer files. The hub
library's own settings (``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_TOKEN`` ...) hold.
"""

from __future__ import annotations

import re
from pathlib import Path

from lepton_compile.errors import SourceError

__all__ = ["download"]

PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
SPEC = re.compile(r"^(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?$")


def download(spec: str, with_code: bool = False) -> tuple[Path, str]:
    """The local snapshot of ``org/name@revision``, and the commit it stands for.

    Args:
        spec: repository, and a commit, branch or tag after ``@``.
        with_code: fetch Python files too, for a model that is trusted to run them.

    Raises:
        SourceError: malformed, no such repository or revision, or not in the cache when offline.
    """
    match = SPEC.match(spec)
    if match is None:
        raise SourceError(
            "The hub name is not well formed.", found=f"hf:{spec}", available=["hf:org/name@commit"]
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                match["name"],
                revision=match["revision"],
                allow_patterns=[*PATTERNS, *(["*.py"] if with_code else [])],
                ignore_patterns=["onnx/*", "openvino/*", "original/*"],
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise SourceError(
            "The model cannot be fetched from the hub.",
            found=f"hf:{spec}",
            hint="Check the name, the revision and the network; offline, fetch it beforehand with "
            "`hf download`.",
        ) from error
    return folder, folder.name
