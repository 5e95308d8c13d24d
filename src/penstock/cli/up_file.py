"""Where the process that owns a data folder says how to reach it; apart, since a start needs no client."""

from pathlib import Path

UP_FILE = "up.json"


def up_file(data_dir: Path) -> Path:
    """Return the file; it holds the URL and the id of the process."""
    return data_dir / UP_FILE
