"""What stands for a picture in a prompt, as the processors of transformers write it.

A prompt has one placeholder for each picture. In its place come as many as the model makes tokens
of the picture; around them, and between tiles, stand marks that the model was trained with.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lepton_compile.errors import SourceError

from .image_text import placeholder, sees_itself
from .image_text_kinds import GEMMA3, GEMMA4, IDEFICS3, INTERNVL, LIGHTON, PIXTRAL, has_pixtral
from .patch_grid import patch_grid
from .source import Source
from .source.objects import read_object
from .source.preprocessor import WHOLE

__all__ = ["picture_prompts"]

MARK, ALL = "<fake_token_around_image>", "<global-img>"
"""Of Idefics3 and SmolVLM: what stands around tiles, and in front of the whole."""
FRAME = (("start_image_token", "<img>"), ("end_image_token", "</img>"))
"""Of InternVL: what a tokenizer calls what stands around all tiles, and what it usually is."""
BEGINS, ENDS = ("boi_token", "<start_of_image>"), ("eoi_token", "<end_of_image>")
"""The same of Gemma 3; the first is what a prompt asks for a picture by."""
AROUND = (("boi_token", "<|image>"), ("eoi_token", "<image|>"))
"""The same of Gemma 4."""
BROKEN = (("image_break_token", "[IMG_BREAK]"), ("image_end_token", "[IMG_END]"))
"""Of Pixtral, by its processor: what stands behind each row of tokens, and behind the last."""


def picture_prompts(source: Source, tokens: int) -> dict[str, Any]:
    """``pictures`` of the manifest's ``generation``; ``tokens`` is how many a tile takes.

    Where that goes by the size of a picture, ``tokens`` is 0 and left out, and ``grid`` says how
    pictures are cut into patches.

    ``placeholder`` is the id of each of them, and ``mutual`` whether those of a picture see each
    other. The rest are texts, which are left out where there is no tokenizer:

    - ``name`` of the placeholder, which in those below stands once for all of a tile;
    - ``mark``, by which a prompt asks for a picture;
    - ``one``: what is put there for a picture of one tile;
    - ``line`` between rows of tokens, of pictures of any size that have something there;
    - of several ``first``, for each ``tile`` (of ``{row}`` and ``{column}``), behind each row of
      them ``line``, and ``whole`` for the picture as a whole.

    Raises:
        SourceError: the tokenizer does not know the placeholder, or what stands around it.
    """
    config = source.config()
    token, kind = placeholder(config), config.model_type
    if has_pixtral(config) and kind not in LIGHTON:
        kind = PIXTRAL
    found: dict[str, Any] = {"placeholder": token, "mutual": sees_itself(config)}
    grid = patch_grid(config)
    found |= {"tokens": tokens} if grid is None else {"grid": asdict(grid)}
    tokenizer: Any = source.tokenizer()
    if tokenizer is None:
        return found
    name = str(tokenizer.convert_ids_to_tokens(token))
    marks = _marks(source, tokenizer, kind)
    texts = {"name": name, **_texts(name, marks, kind)}
    for mark in (name, texts["mark"], *marks):
        ids = tokenizer.encode(mark, add_special_tokens=False)
        if tokenizer.convert_ids_to_tokens(ids) != [mark]:
            raise SourceError(
                "The tokenizer has no tokens of their own for what stands for images.",
                where=str(source.tokenizer_folder()),
                found=f"{mark} is {ids[:9]}, and the placeholder {token}",
                hint="Compare tokenizer.json with that which the model was released with.",
            )
    return found | texts


def _marks(source: Source, tokenizer: Any, kind: str) -> list[str]:
    """What stands around pictures of such a model, each a token."""
    if kind in IDEFICS3:
        return [MARK]
    if kind == PIXTRAL:
        said = read_object(source.folder / WHOLE)
        return [str(said.get(which) or usual) for which, usual in BROKEN]
    named = {**dict.fromkeys(INTERNVL, FRAME), **dict.fromkeys(GEMMA3, (BEGINS, ENDS))}
    named |= dict.fromkeys(GEMMA4, AROUND)
    return [_token(tokenizer, *which) for which in named.get(kind, ())]


def _texts(name: str, marks: list[str], kind: str) -> dict[str, str]:
    """Texts of ``picture_prompts`` but ``name``; those of several tiles where a kind has them."""
    if kind in GEMMA3:
        mark, end = marks
        return {"mark": mark, "one": f"\n\n{mark}{name}{end}\n\n"}
    if kind == PIXTRAL:
        line, end = marks
        return {"mark": name, "one": f"{name}{end}", "line": line}
    if kind in GEMMA4:
        return {"mark": name, "one": name.join(marks)}
    if kind in INTERNVL:
        first, last = marks
        one = f"{first}{name}{last}"
        tiles = {"first": first, "tile": name, "line": "", "whole": f"{name}{last}"}
        return {"mark": name, "one": one, **tiles}
    if kind not in IDEFICS3:
        return {"mark": name, "one": name}
    one = f"{MARK}{ALL}{name}{MARK}"
    tile = f"{MARK}<row_{{row}}_col_{{column}}>{name}"
    return {"mark": name, "one": one, "first": "", "tile": tile, "line": "\n", "whole": f"\n{one}"}


def _token(tokenizer: Any, which: str, usual: str) -> str:
    """What the tokenizer calls ``which``."""
    return str(getattr(tokenizer, which, None) or usual)
