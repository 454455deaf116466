"""What ``inspect`` says of a decoder's cache."""

from __future__ import annotations

from typing import Any

import pytest

from lepton_compile.cli.cache_text import cache_text

LAYERS = [{"heads": 8, "head_dim": 128}] * 4


def _manifest(*dtypes: str | None, **cache: Any) -> dict[str, Any]:
    engines = [{"cache": {"dtype": dtype}} if dtype else {} for dtype in dtypes]
    given = {"layers": LAYERS, "shared": True, "max_length": 512, "dtype": "float32"}
    return {"cache": given | cache, "engines": engines}


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (_manifest(None), "4 layers, 512 tokens, in place, 32.77 kB (float32) a token"),
        (_manifest("float16"), "4 layers, 512 tokens, in place, 16.38 kB (float16) a token"),
        (
            _manifest("bfloat16", None, "bfloat16", shared=False),
            "4 layers, 512 tokens, growing, 16.38 kB (bfloat16) or 32.77 kB (float32) a token",
        ),
        (
            _manifest("float8_e4m3fn"),
            "4 layers, 512 tokens, in place, 8.192 kB (float8_e4m3fn) a token",
        ),
        (
            _manifest("float16") | {"engines": [{"cache": {"dtype": "int8", "group": 32}}]},
            "4 layers, 512 tokens, in place, 8.704 kB (int8) a token",
        ),
        (
            _manifest() | {"engines": [{"cache": {"dtype": "int8", "group": n}} for n in (32, 0)]},
            "4 layers, 512 tokens, in place, 8.192 kB (int8) or 8.704 kB (int8) a token",
        ),
        (_manifest("strange"), "4 layers, 512 tokens, in place"),
        (_manifest(None, dtype=[[]]), "4 layers, 512 tokens, in place"),
        (
            _manifest(None, layers=[], states=[{}, {}]),
            "0 layers and 2 states, 512 tokens, in place",
        ),
    ],
)
def test_it_says_what_a_token_takes(manifest: dict[str, Any], said: str) -> None:
    assert cache_text(manifest) == said
