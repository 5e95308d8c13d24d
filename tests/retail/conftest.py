"""Lets the tests of this folder import the parts beside them; the benchmark does the same."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
