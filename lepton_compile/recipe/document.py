"""YAML into plain data, with the line of every key.

The text is composed into nodes and converted here, because the errors of a recipe name file and
line. Only mappings, lists and scalars pass: no tags, no duplicate keys, and aliases count with what
they stand for, so that a small file cannot grow into a large one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from lepton_compile.errors import RecipeError

__all__ = ["Document", "KeyPath", "parse_document", "parse_scalar"]

KeyPath = tuple[str | int, ...]

TEXT_LIMIT = 1 << 20
NODE_LIMIT = 10_000
DEPTH_LIMIT = 16
SCALAR_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null"))


@dataclass
class Document:
    """A parsed recipe: its data, and where each key stands (``recipe.yaml:4``)."""

    name: str
    data: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """Where the value at ``path`` is, or the nearest thing around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.name


def parse_document(text: str, name: str) -> Document:
    """Parse the YAML of a recipe.

    Raises:
        RecipeError: not YAML, not a mapping, a key twice, a tag, or too large.
    """
    if len(text) > TEXT_LIMIT:
        raise RecipeError("The recipe is too large.", where=name, found=f"{len(text)} characters")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(
            "The recipe is not valid YAML.", where=f"{name}:{line}", found=error.problem
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError("The recipe is not valid YAML.", where=name, found=str(error)) from error
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(
            "A recipe is a mapping of keys to values.", where=f"{name}:1", available=["model: ..."]
        )
    document = Document(name, {})
    document.data = _Converter(document).mapping(node, (), 0)
    return document


def parse_scalar(text: str) -> Any:
    """The value of one override, typed as YAML types it. Raises RecipeError."""
    document = parse_document(f"value: {text}" if text else "value:", "--set")
    return document.data["value"]


class _Converter:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.constructor = yaml.SafeLoader("")
        self.count = 0

    def fail(self, message: str, node: yaml.Node, found: str | None = None) -> RecipeError:
        return RecipeError(message, where=self._place(node), found=found)

    def _place(self, node: yaml.Node) -> str:
        return f"{self.document.name}:{node.start_mark.line + 1}"

    def value(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        self.count += 1
        if self.count > NODE_LIMIT or depth > DEPTH_LIMIT:
            raise self.fail("The recipe is too large once its aliases are followed.", node)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self.document.places[(*path, index)] = self._place(item)
                items.append(self.value(item, (*path, index), depth + 1))
            return items
        return self.scalar(node)

    def mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        if node.tag != "tag:yaml.org,2002:map":
            raise self.fail("Tags are not allowed in a recipe.", node, node.tag)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise self.fail("A key of a recipe is a word.", key_node, str(key_node.value))
            if key in found:
                raise self.fail("A key stands twice.", key_node, ".".join(map(str, (*path, key))))
            self.document.places[(*path, key)] = self._place(key_node)
            found[key] = self.value(value_node, (*path, key), depth + 1)
        return found

    def scalar(self, node: yaml.Node) -> Any:
        if node.tag not in SCALAR_TAGS:
            if node.tag in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge"):
                return node.value  # plain text that YAML 1.1 reads more into
            raise self.fail("Tags are not allowed in a recipe.", node, node.tag)
        try:
            return self.constructor.construct_object(node)
        except (ValueError, LookupError, ArithmeticError, yaml.YAMLError) as error:
            raise self.fail("A value cannot be read.", node, str(node.value)[:80]) from error
