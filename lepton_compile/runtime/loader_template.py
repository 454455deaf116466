"""Chat templates, rendered in a sandbox as transformers renders them. Needs `jinja2`."""

from __future__ import annotations

import json
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
    sandbox, why = need("jinja2.sandbox", "a chat template"), "the chat template"
    known = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}

    def refuse_messages(reason: str) -> None:
        raise LoaderError(f"{why} refuses these messages: {reason}")

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _generation_tag()],
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": refuse_messages, "strftime_now": _strftime_now}
    try:
        return str(environment.from_string(source).render(**special, **known))
    except LoaderError:
        raise
    except Exception as error:  # a template is a program, and may fail as any other
        kind = type(error).__name__
        raise LoaderError(f"{why} fails on these messages: {kind}: {error}") from error


def _generation_tag() -> Any:
    """The block ``generation``, which marks answers for training: here what is in it."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    def parse(_: Any, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)

    return type("Generation", (Extension,), {"tags": {"generation"}, "parse": parse})


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; jinja2's own filter is for web pages, and escapes what they would read."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(form: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(form)
