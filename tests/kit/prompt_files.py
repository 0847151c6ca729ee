"""Files of prompts, and the image they are for."""

from pathlib import Path

PICTURE = Path("photos/a.jpg")


def written(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name
