"""JSON objects in files of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is none to be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def as_json(value: dict[str, Any]) -> bytes:
    """For people, too."""
    return (json.dumps(value, indent=2) + "\n").encode()
