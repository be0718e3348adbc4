"""Looks things up in a document of YAML or JSON, whatever stands in their place."""

from __future__ import annotations

from typing import Any


def at(document: Any, *names: str) -> Any:
    """Return what stands there, by the names of mappings; None if nothing does."""
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def mapping(document: Any, *names: str) -> dict[str, Any]:
    """Return the mapping that stands there; an empty one if none does."""
    found = at(document, *names)
    return found if isinstance(found, dict) else {}


def items(document: Any, *names: str) -> list[Any]:
    """Return the list that stands there; an empty one if none does."""
    found = at(document, *names)
    return found if isinstance(found, list) else []
