"""Manifests that somebody edited and sealed again: a LoaderError, or the edit does not matter.

The emitted file is what is run: parts that were left out are not there to save it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.test_emit import imported

GONE: Any = object()
VALUES: tuple[Any, ...] = (
    GONE,
    None,
    "{strange}",
    -1,
    2**62,
    10**30,
    1.5,
    True,
    [[]],
    ["x"],
    {"a": 1},
)
SKIPPED = {"digest", "lock", "tools", "lepton", "demands", "model"}  # no loader reads them


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all keys, and of the first of each list."""
    if path:
        yield path
    items: Any = node.items() if isinstance(node, dict) else ()
    items = enumerate(node[:1]) if isinstance(node, list) else items
    for key, value in items:
        if path or key not in SKIPPED:
            yield from places(value, (*path, key))


def edited(manifest: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with another value at the path, and a digest that is right again."""
    made = deepcopy(manifest)
    made.pop("digest")
    at: Any = made
    for key in path[:-1]:
        at = at[key]
    if value is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    canonical = json.dumps(made, sort_keys=True, separators=(",", ":"))
    return {**made, "digest": hashlib.sha256(canonical.encode()).hexdigest()}


def calls(model: Any) -> list[Callable[[], Any]]:
    """What the task does, in each of its ways."""
    if not hasattr(type(model), "generate"):
        return [lambda: model.run({"input_ids": [[5, 6]]}), lambda: model.embed(["w5 w6", "w7"])]
    return [
        lambda: model.run({"input_ids": [[5, 6]]}),
        lambda: model.generate("w5", chat=True, max_new_tokens=2).text,
        lambda: model.generate([[5, 6], [7]], max_new_tokens=2),
    ]


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_no_edit_ends_in_anything_but_a_refusal(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    source = request.getfixturevalue(f"{kind}_folder")
    folder = Path(shutil.copytree(source, tmp_path / "forged"))
    loader, file = imported(folder / "loader.py"), folder / "manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    refused = other = 0
    for path in places(manifest):
        for value in VALUES:
            file.write_text(json.dumps(edited(manifest, path, value)), "utf-8")
            try:
                with loader.load(folder, threads=1) as model:
                    other += 1
                    for call in calls(model):
                        with suppress(loader.LoaderError):
                            call()
            except loader.LoaderError:
                refused += 1
            except Exception as error:  # what the test is about
                raise AssertionError(f"{path} = {value!r}: {error!r}") from error
    assert refused > 100
    assert other > 20


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("engines", 0, "target"), 5, r"manifest\.engines\[0\]\.target cannot be 5"),
        (("engines", 0, "requires"), GONE, r"manifest\.engines\[0\]\.requires cannot be None"),
        (("ranges", "batch"), [8, 1], r"manifest\.ranges\.batch cannot be \[8, 1\]"),
        (("ranges", "sequence"), [1], r"manifest\.ranges\.sequence cannot be \[1\]"),
        (("inputs", 0, "shape", 0), -1, r"manifest\.inputs\[0\]\.shape\[0\] cannot be -1"),
        (("cache", "layers", 0, "heads"), "2", r"cache\.layers\[0\]\.heads cannot be '2'"),
        (("generation", "vocabulary"), None, r"generation\.vocabulary cannot be None"),
        (("tokenizer", "file"), 7, r"manifest\.tokenizer\.file cannot be 7"),
        (("files", "loader.py", "size"), "1", r"files\.loader\.py\.size cannot be '1'"),
    ],
)
def test_the_refusal_says_which_key(
    decoder_folder: Path, tmp_path: Path, path: tuple[Any, ...], value: Any, said: str
) -> None:
    folder = Path(shutil.copytree(decoder_folder, tmp_path / "forged"))
    loader, file = imported(folder / "loader.py"), folder / "manifest.json"
    made = edited(json.loads(file.read_text("utf-8")), path, value)
    file.write_text(json.dumps(made), "utf-8")
    with pytest.raises(loader.LoaderError, match=rf"manifest\.json is damaged: .*{said}"):
        loader.load(folder, threads=1)


def test_what_may_be_missing_is_null(decoder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(decoder_folder, tmp_path / "forged"))
    loader, file = imported(folder / "loader.py"), folder / "manifest.json"
    made = edited(json.loads(file.read_text("utf-8")), ("generation", "eos"), GONE)
    file.write_text(json.dumps(made), "utf-8")
    with loader.load(folder, threads=1) as model:
        assert model.manifest["generation"]["eos"] is None
        assert model.generate([5], max_new_tokens=2).tokens
