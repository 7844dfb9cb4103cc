"""Methods and their settings in words, for the help and docs. Read without torch."""

from __future__ import annotations

from orchard.compression.registry import method_named


def method_words(name: str) -> str:
    """The method's line, then one for each of its settings, as a paragraph that keeps its line ends."""
    method = method_named(name)
    lines = [f"{name}: {method.summary}"]
    for key, field in method.load(method.settings).model_fields.items():
        default = "..." if field.is_required() else field.get_default()
        lines.append(f"  --set {key}={default}  {field.description}")
    return "\b\n" + "\n".join(lines)
