"""Attention and its mask, captured through transformers' own interfaces.

Every model that calls attention through ``ALL_ATTENTION_FUNCTIONS`` hands us query, key and value
after rotary and cache update; every model that makes its mask with ``masking_utils`` hands us the
rule of the mask as a function of two indices. The rule is settled by evaluating it.

A model that calls torch's ``scaled_dot_product_attention`` itself (Falcon) is captured there; one
that writes attention out (Bloom, GPT-J) keeps its own code, and only its cache is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from lepton_compile.errors import ExportError
from lepton_compile.export import ops  # noqa: F401  # defines torch.ops.lepton
from lepton_compile.export.meta import configs_of
from lepton_compile.export.refusal import OwnCodeError
from lepton_compile.export.swapped import swapped

from . import states
from .masks import MaskRule, chunks_of_rows, settle
from .sharing import uncut

__all__ = [
    "NAME",
    "OWN",
    "TORCH",
    "AttentionCapture",
    "LeptonCache",
    "LooksAheadError",
    "MaskRule",
    "active",
]

# Where attention is captured: transformers' interface, torch's function, or nowhere.
NAME, TORCH, OWN = "lepton", "sdpa", "own"
# Heads of a cache are a multiple of it: onnxruntime refuses others when it runs, and the builder of
# TensorRT-RTX 1.7 ends with an error of its own on native attention in halves.
_WIDTH = 8
_active: list[AttentionCapture] = []


def active() -> AttentionCapture | None:
    """The capture that is under way."""
    return _active[-1] if _active else None


class _NoLayers(list[Any]):
    """The layers of our cache. There are none: code that looks one up would keep a state there that
    nothing captures."""

    def __getitem__(self, index: Any) -> Any:
        raise ExportError(states.NOT_SUPPORTED)


class LeptonCache(Cache):
    """A cache that passes keys and values through: the attention op owns the real one.

    Args:
        total: past and new tokens.
        new: new tokens. None where they are not known, which a model that asks is told.
        own: whether attention is the model's own code: it gets past and new keys from an op.
    """

    def __init__(self, total: Any, new: Any = None, *, own: bool = False) -> None:
        super().__init__(layers=_NoLayers())
        self.total, self.new, self.own = total, new, own

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if self.own:
            if key_states.ndim != 4 or value_states.ndim != 4:
                raise ExportError("the model keeps its cache in a form of its own")
            key, value = torch.ops.lepton.append(key_states, value_states, self.total)
            return key, value
        if _active:
            _active[-1].fresh_keys.append(key_states)
            _active[-1].pair(key_states, value_states)
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        if self.total is None or self.new is None:
            raise ExportError("a layer asks how many tokens came before, and takes no mask of them")
        return self.total - self.new

    def get_query_offset(self, layer_idx: int | None = None) -> Any:
        return self.get_seq_length()

    def get_mask_sizes(self, query_length: Any, layer_idx: int | None = None) -> tuple[Any, int]:
        return self.total, 0

    @property
    def is_sliding(self) -> list[bool]:
        return []

    # States: there never is one before, for the ops own theirs.

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> None:
        return None

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> None:
        return None

    def has_previous_state(
        self, layer_idx: int | None = None, state_idx: int | None = None
    ) -> bool:
        return False

    def is_recording_past(self, layer_idx: int) -> bool:
        return False

    def update_conv_state(
        self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        states.active().enter(conv_states)
        return conv_states

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        states.active().keep(recurrent_states)
        return recurrent_states


class AttentionCapture:
    """State of one capture: masks by identity with their rule, keys that went through the cache,
    and how often attention was called."""

    def __init__(self, positions: int) -> None:
        self.positions = positions  # of the longest sequence that an engine will see
        self.marked: Tensor | None = None  # which keys are of pictures, whose tokens see each other
        self.marked_near = False  # whether that is so only where layers see a window alone
        self.generates = False  # whether tokens follow, which those before must not see
        self.calls = 0
        self.rules: dict[int, MaskRule] = {}
        self.fresh_keys: list[Tensor] = []
        self.crossing: list[Tensor] = []  # keys of another text, which no cache of ours holds
        self._read: list[Tensor] = []  # keys of caches, once attention was called with them
        self._values: dict[int, Tensor] = {}
        self._alive: list[Tensor] = []

    def remember(self, mask: Tensor, rule: MaskRule) -> None:
        """Note the rule of a mask tensor that the model will pass on to its layers."""
        self.rules[id(mask)] = rule
        self._alive.append(mask)  # an id is only unique while its object lives

    def pair(self, key: Tensor, value: Tensor) -> None:
        """Note which values belong to keys of a cache."""
        self._values[id(key)] = value
        self._alive.append(key)

    def paired(self, key: Tensor, value: Tensor) -> bool:
        """Whether these are keys and values of one cache."""
        return self._values.get(id(key)) is value

    def shares(self, key: Tensor, value: Tensor) -> bool:
        """Whether they are of the cache of a layer that has read them before."""
        return self.paired(key, value) and any(each is key for each in self._read)

    def share(self, key: Tensor, value: Tensor) -> None:
        """Note keys and values that a layer is given of the cache of another."""
        self.pair(key, value)
        self._read.append(key)

    def rule_of(self, value: object) -> MaskRule | None:
        return self.rules.get(id(value))

    @contextmanager
    def patched(self, model: nn.Module, implementation: str = NAME) -> Iterator[None]:
        """Have the model call attention by ``implementation`` while the context is open."""
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, _mask)
        configs = configs_of(model) if implementation != OWN else []
        before = [config._attn_implementation for config in configs]
        for config in configs:
            config._attn_implementation = implementation
        _active.append(self)
        try:
            with ExitStack() as stack:
                if implementation == TORCH:
                    stack.enter_context(_through_torch())
                if implementation != OWN:
                    stack.enter_context(_cached_expanded(model))
                    stack.enter_context(uncut(model))
                    stack.enter_context(chunks_of_rows())
                yield
        finally:
            _active.pop()
            for config, name in zip(configs, before, strict=True):
                config._attn_implementation = name


class LooksAheadError(ExportError):
    """A model for generating text attends to tokens that are not there yet."""


@contextmanager
def _through_torch() -> Iterator[None]:
    """Capture torch's own attention function, with our masks in place of torch's."""
    mask = ALL_MASK_ATTENTION_FUNCTIONS[TORCH]
    ALL_MASK_ATTENTION_FUNCTIONS[TORCH] = partial(_mask, make=torch.ops.lepton.wide_mask)
    try:
        with swapped((functional, "scaled_dot_product_attention", _scaled_dot_product)):
            yield
    finally:
        ALL_MASK_ATTENTION_FUNCTIONS[TORCH] = mask


def _cached_expanded(model: nn.Module) -> AbstractContextManager[None]:
    """Cache the keys and values of latent attention (MLA) in place of the latents they come from.

    transformers caches latents and makes keys and values of all of them in each step, token by
    token. The keys and values of a token stay as they are, so they are cached themselves: more
    memory for a token, nothing to be made anew, and attention like any other
    (DeepSeek-AI, DeepSeek-V2, 2024, arXiv:2405.04434, section 2.1).
    """

    def expanded(expand: Callable[..., Any], *latents: Tensor) -> tuple[Tensor, Tensor]:
        key, value = expand(*latents)
        fresh = _active[-1].fresh_keys
        if any(latents[0] is each for each in fresh):  # they are cached, in a decoder
            fresh.append(key)
        return key, value

    latent: list[Any] = [module for module in model.modules() if hasattr(module, "expand_kv")]
    return swapped(*((m, "expand_kv", partial(expanded, m.expand_kv)) for m in latent))


def _scaled_dot_product(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch's function as the captured op: (batch, heads, sequence, dim) in and out."""
    if query.ndim != 4:
        raise ExportError("the model calls torch's attention with other than four axes")
    out, _ = _attention(
        nn.Identity(), query, key, value, attn_mask, scaling=scale, is_causal=is_causal
    )
    return out.transpose(1, 2)


def _mask(
    *args: Any,
    attention_mask: Tensor | None = None,
    mask_function: Callable[..., Any],
    make: Callable[[Tensor], Tensor] = torch.ops.lepton.mask,
    **kwargs: Any,
) -> Tensor | None:
    """Stand in for transformers' mask builders: the padding mask itself, its rule noted."""
    rule = settle(mask_function, _active[-1].positions)
    if _active[-1].generates and not rule.causal and attention_mask is not None:
        _refuse_to_generate(kwargs.get("config"))
    if attention_mask is None and rule.free:
        return None
    near = _active[-1].marked_near
    if _active[-1].marked is not None and rule.causal and (rule.window >= 0 or not near):
        return _marks(rule, make)
    if attention_mask is None:  # what attention says of itself may be something else
        sizes = (kwargs["batch_size"], kwargs["kv_length"])
        attention_mask = torch.ones(sizes, dtype=torch.bool, device="meta")
        rule = replace(rule, padded=False)
    mask = make(attention_mask)
    _active[-1].remember(mask, rule)
    return mask


def _marks(rule: MaskRule, make: Callable[[Tensor], Tensor]) -> Tensor:
    """A mask that says of keys which picture they are of, too."""
    if make is not torch.ops.lepton.mask:
        raise OwnCodeError("pictures see themselves where attention is called through transformers")
    mask: Tensor = torch.ops.lepton.marks(_active[-1].marked)
    _active[-1].remember(mask, rule)
    return mask


def _refuse_to_generate(config: Any) -> None:
    says = getattr(config, "is_decoder", None)
    raise LooksAheadError(
        "the model does not generate text: each of its tokens sees those after it",
        where="config.json",
        found=None if says is None else f"is_decoder: {str(says).lower()}",
        hint="choose a task such as fill-mask or feature-extraction; a model that was trained to "
        "look back alone says is_decoder: true in its config.json",
    )


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls as attention; query is (batch, heads, sequence, dim).

    ``s_aux`` are attention sinks: a logit for each head, which the Softmax counts and drops.
    """
    state = _active[-1]
    state.calls += 1
    _check_no_more(kwargs)
    rule = state.rule_of(attention_mask)
    if rule is None:
        if attention_mask is not None:
            raise OwnCodeError(
                "attention is called with a mask that the mask interface did not make"
            )
        causal = is_causal if is_causal is not None else bool(getattr(module, "is_causal", False))
        rule = MaskRule(causal, -1 if sliding_window is None else sliding_window)
    if query.shape[1] % key.shape[1]:
        raise ExportError(
            "heads of queries are no multiple of those of keys",
            found=f"{query.shape[1]} and {key.shape[1]}",
            hint="compare num_key_value_heads with that which the model was released with",
        )
    scale = scaling if scaling is not None else float(query.shape[-1]) ** -0.5
    if attention_mask is not None and s_aux is None and state.shares(key, value):
        if key.shape[-1] % _WIDTH:  # those of the cache are wider
            raise OwnCodeError(f"layers share keys whose heads are no multiple of {_WIDTH} wide")
        plain = (float(scale), rule.causal, rule.window, float(softcap or 0.0))
        return torch.ops.lepton.shared_attention(query, key, value, attention_mask, *plain), None
    cached = any(fresh is key for fresh in state.fresh_keys)
    if state.fresh_keys and not cached and not any(other is key for other in state.crossing):
        raise ExportError("the model changes its keys between the cache and attention")
    if state.paired(key, value):
        state.share(key, value)
    if not (rule.padded or cached or rule.window >= 0 or s_aux is not None):
        attention_mask = None  # the order of tokens is all that it says
    width = value.shape[-1]
    out = torch.ops.lepton.attention(
        *_of_one_width(query, key, value, of=_WIDTH if cached else 1),
        attention_mask,
        float(scale),
        rule.causal,
        rule.window,
        float(softcap or 0.0),
        cached,
        s_aux,
    )
    return out if out.shape[-1] == width else out[..., :width], None


def _check_no_more(given: Mapping[str, Any]) -> None:
    """Refuse what T5 and others add to scores: passed over, it would change the numbers."""
    for name, value in given.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            raise OwnCodeError("attention is given more than is captured", found=name)


def _of_one_width(*heads: Tensor, of: int) -> list[Tensor]:
    """Heads of equal width, a multiple of ``of``, as kernels and caches want them: narrower ones
    end in zeros, which add nothing to scores, and columns to the output that nobody reads."""
    widest = -(-max(each.shape[-1] for each in heads) // of) * of
    return [
        each if each.shape[-1] == widest else functional.pad(each, (0, widest - each.shape[-1]))
        for each in heads
    ]
