"""A folder of compiled kernels, read: which there are, which suit a device, their bytes checked.

Reading the index opens no other file. A kernel's bytes are given out only after their SHA-256 was
found right: machine code is code.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lepton_plugins.attention.variant import Variant
from lepton_plugins.spec import PluginError

__all__ = ["KernelIndex"]

# What ``toolchain.store`` writes; an index is also read where the toolchain is not.
INDEX_FILE, INDEX_FORMAT = "kernels.json", 1


class KernelIndex:
    """The index of ``folder``.

    Raises:
        PluginError: there is none that this version can read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        path = self.folder / INDEX_FILE
        try:
            index = json.loads(path.read_text("utf-8"))
            found, self._sets = index["format"], dict(index["sets"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PluginError("no index of kernels", where=str(path), found=str(error)) from error
        if found != INDEX_FORMAT:
            known = (str(INDEX_FORMAT),)
            what = "the index has another format"
            raise PluginError(what, where=str(path), found=str(found), available=known)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """What there are kernels for."""
        return tuple(Variant(**each["variant"]) for each in self._sets.values())

    def entries(self, variant: Variant) -> list[dict[str, Any]]:
        """The kernels of ``variant``, all architectures.

        Raises:
            PluginError: none were compiled.
        """
        if variant.key not in self._sets:
            raise PluginError(
                "no kernels were compiled for this variant",
                where=str(self.folder),
                found=json.dumps(variant.as_dict()),
                available=[json.dumps(each["variant"]) for each in self._sets.values()],
                hint="write_kernels(folder, [..., this variant], architectures)",
            )
        kernels: list[dict[str, Any]] = self._sets[variant.key]["kernels"]
        return kernels

    def for_device(self, variant: Variant, capability: int) -> tuple[dict[str, Any], bool]:
        """The kernels by name for a device of ``capability`` (90 for 9.0), and whether it can run
        their machine code; if not, their PTX.

        A device runs its own code, that of an earlier one of its major version, and PTX of any
        earlier one; code that is bound to one architecture stays there.

        Raises:
            PluginError: nothing suits.
        """
        entries = self.entries(variant)
        bound = {e["architecture"] for e in entries if e["target"].endswith("a")}
        known = {e["architecture"] for e in entries}
        earlier = {arch for arch in known - bound if arch < capability}
        alike = {arch for arch in earlier if arch // 10 == capability // 10}
        suiting = ({capability} & known) or alike or earlier
        if not suiting:
            raise PluginError(
                "no kernels for this device",
                found=f"compute capability {capability / 10:.1f}",
                available=tuple(f"{arch / 10:.1f}" for arch in sorted(known)),
                hint="write_kernels with this architecture",
            )
        arch = max(suiting)
        found = {e["kernel"]: e for e in entries if e["architecture"] == arch}
        return found, arch // 10 == capability // 10

    def read(self, file: dict[str, Any]) -> bytes:
        """The bytes of a kernel's file.

        Raises:
            PluginError: it cannot be read, lies elsewhere, or is not what was written.
        """
        path = self.folder / file["file"]
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise PluginError("a kernel's file lies outside of its folder", where=str(path))
        try:
            data: bytes = path.read_bytes()
        except OSError as error:
            raise PluginError("a kernel's file cannot be read", where=str(path)) from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != file["sha256"]:
            what = "a kernel's file is damaged: it was not loaded"
            expected = (f"SHA-256 {file['sha256']}",)
            raise PluginError(what, where=str(path), found=digest, available=expected)
        return data
