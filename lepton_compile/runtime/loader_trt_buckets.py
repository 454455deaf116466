"""Caches of several capacities in one plan: from one into the next that is larger."""

from __future__ import annotations

from typing import Any

from lepton_compile.runtime.loader_guard import LoaderError

__all__ = ["at_first", "grow"]


def at_first(longest: int, limit: int, ahead: int) -> int:
    """Tokens that a row has room for when it begins: not all that may come, for caches grow."""
    return longest + min(ahead, limit)


def grow(cache: Any, need: int) -> None:
    """Move what ``cache`` holds into memory with room for ``need`` tokens in each row."""
    plan, old, new = cache.plan, cache.bucket, cache.plan.bucket(need)
    device, stream, there = plan.device, plan.stream, dict[str, int]()
    heads = {name: cache.batch * shape[0] for name, shape in new.layers.items()}
    try:
        for name, size in new.sizes.items():
            there[name] = device.malloc(size * cache.batch)
    except LoaderError:
        for address in there.values():
            device.free(address)
        raise
    for name, address in there.items():
        device.zero(address, new.sizes[name] * cache.batch, stream)
        steps = [bucket.sizes[name] // bucket.layers[name][0] for bucket in (new, old)]
        device.copy_parts(address, steps[0], cache.caches[name], steps[1], heads[name], stream)
    device.wait(stream)
    for context in (old.prefill, old.decode):
        context.forget()
    for address in cache.caches.values():
        device.free(address)
    cache.bucket, cache.caches = new, there
