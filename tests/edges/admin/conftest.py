"""Fixtures of the admin tests: the project of the serving tests, with its whole application."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "serving"))

from tests_serving import folder, play, project  # noqa: F401
