"""Fixtures of the serving tests; the parts are in `tests_serving.py` beside this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from tests_serving import folder, play, project  # noqa: F401
