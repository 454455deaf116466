"""Chat templates, rendered in a sandbox as transformers renders them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

from lepton_compile.runtime.loader_guard import LoaderError, check_digests, failing, refuse
from lepton_compile.runtime.loader_special import Special

__all__ = ["Templated", "environment", "rendered"]


class Templated(Special):
    """A model with a chat template."""

    @cached_property
    def chat_template(self) -> Any:
        """The template, compiled once: that takes longer than to render it."""
        name = self.manifest["tokenizer"]["chat_template"]
        check_digests(self.path, self.manifest, [name])
        source = (self.path / name).read_text(encoding="utf-8")
        return environment().from_string(source, self.special_tokens)


def rendered(model: Any, given: Mapping[str, Any]) -> str:
    """The chat template of ``model`` over what is ``given`` by name, ready for the answer."""
    known = {"tools": None, "documents": None, "add_generation_prompt": True, **given}
    try:
        return str(model.chat_template.render(known))
    except LoaderError:
        raise
    except Exception as error:  # a template is a program, and may fail as any other
        kind = type(error).__name__
        raise LoaderError(f"the chat template fails on these messages: {kind}: {error}") from error


def environment() -> Any:
    """Where templates are read and rendered."""
    with failing("a chat template needs jinja2: pip install jinja2"):
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    made = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols", _generation_tag()])
    made.trim_blocks = made.lstrip_blocks = True
    # jinja2's own filter is for web pages, and escapes what they would read.
    made.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
    refuses = "the chat template refuses these messages"
    made.globals["raise_exception"] = lambda reason: refuse(True, f"{refuses}: {reason}")
    made.globals["strftime_now"] = time.strftime
    return made


def _generation_tag() -> Any:
    """The block ``generation``, which marks answers for training: here what is in it."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    def parse(_: Any, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)

    return type("Generation", (Extension,), {"tags": {"generation"}, "parse": parse})
