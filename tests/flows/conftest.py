"""Fixtures of the flows' tests: the small shop of the serving tests, open for one story."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "edges" / "serving"))
sys.path.insert(0, str(Path(__file__).parent))

from tests_serving import folder, play, project  # noqa: F401
