"""Chat templates, rendered in a sandbox. Needs `jinja2`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lepton_compile.runtime.loader_guard import LoaderError

__all__ = ["rendered"]


def rendered(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    special: Mapping[str, Any],
    need: Callable[[str, str], Any],
) -> str:
    """The template ``source`` over ``messages``, ready for the answer."""
    sandbox = need("jinja2.sandbox", "a chat template")

    def refuse_messages(why: str) -> None:
        raise LoaderError(f"the chat template refuses these messages: {why}")

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    template = environment.from_string(source)
    given = {"messages": messages, "add_generation_prompt": True}
    try:
        return str(template.render(**special, **given, raise_exception=refuse_messages))
    except need("jinja2", "a chat template").TemplateError as error:
        raise LoaderError(f"the chat template fails on these messages: {error}") from error
