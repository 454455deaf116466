"""What a model's files say of tokens, and of how it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.source import Source
from lepton_compile.export.source.objects import read_object

__all__ = ["LARGEST", "Said"]

LARGEST = 1 << 16
"""Of a number of tokens, samples or bands: more is none of texts, nor of speech."""

_PARTS = ("decoder", "generator", "text_config")  # of config.json: the part that writes


class Said:
    """What the model's files say of tokens.

    As transformers reads them: generation_config.json as a whole, which is what the model was
    released to use; where there is none, config.json as it stands. Ids that the model has no token
    for are left out: no loader takes a manifest that has them.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._config = source, source.config().get_text_config()
        self._file = source.path / "generation_config.json"
        self.vocabulary = int(self._config.vocab_size)

    @cached_property
    def _given(self) -> dict[str, Any]:
        return read_object(self._file) if self._source.kind == "folder" else {}

    @cached_property
    def _written(self) -> dict[str, Any]:
        """config.json as it stands: its classes keep nothing of how to generate. What it says of
        the whole model goes before what it says of the part that writes."""
        if self._source.kind != "folder":
            return {}
        whole = read_object(self._source.path / "config.json")
        part: Any = next(filter(None, map(whole.get, _PARTS)), None)
        told = {name: value for name, value in whole.items() if value is not None}
        return part | told if isinstance(part, dict) else told

    def one(self, name: str) -> int | None:
        """The id of that name."""
        found = self._ids(name, many=False)
        return found[0] if found else None

    def ids(self, name: str) -> list[int]:
        """All ids of that name."""
        return self._ids(name, many=True)

    def idle_ends(self) -> list[int]:
        """Ids that config.json has for the end of an answer, where generation_config.json has none,
        and nothing ends one."""
        if not self._file.is_file() or self.ids("eos_token_id"):
            return []
        value = self._written.get("eos_token_id")
        return [one for one in (value if isinstance(value, list) else [value]) if type(one) is int]

    def rule_ids(self, name: str, *, many: bool = True) -> list[int]:
        """All ids, or the one, of a rule of that name."""
        return self._ids(name, many=many) if self.rule(name) is not None else []

    def count(self, name: str) -> int:
        """The number of that name; 0 where there is none."""
        value, here = self.rule(name), self._file.is_file()
        if value is not None and (type(value) is not int or not 0 <= value <= LARGEST):
            raise SourceError(
                f"{name} is no number of tokens.",
                where=str(self._file if here else self._source.path),
                found=f"{value!r:.60}",
                available=[f"a whole number from 0 to {LARGEST:,}, or null"],
            )
        return value or 0

    def named(self, name: str) -> dict[str, int]:
        """Ids by name."""
        found = self._value(name)
        items = found.items() if isinstance(found, dict) else ()
        return {str(k): v for k, v in items if type(v) is int and self.known([v])}

    def rule(self, name: str) -> Any:
        """What answers are held to; None where nothing says so."""
        told = self._given if self._file.is_file() else self._written
        return told.get(name)

    def _value(self, name: str) -> Any:
        """What the files say; of a single file, what its own metadata do."""
        if self._source.kind != "folder":
            return getattr(self._config, name, None)
        return self.rule(name)

    def _ids(self, name: str, *, many: bool) -> list[int]:
        value = self._value(name)
        ids = [] if value is None else value if isinstance(value, list | tuple) else [value]
        if any(type(each) is not int for each in ids) or (len(ids) > 1 and not many):
            raise SourceError(
                f"{name} is no number of a token.",
                where=str(self._file if self._file.is_file() else self._source.path),
                found=f"{value!r:.60}",
                available=["a whole number, or null", *["a list of them"] * many],
            )
        return self.known(ids)

    def known(self, ids: Sequence[int]) -> list[int]:
        """Those that the model has a token for."""
        return [each for each in ids if 0 <= each < self.vocabulary]  # -1 is how some say none
