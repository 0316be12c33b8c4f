"""Let the tests of this folder share nn_checks (pytest's importlib mode adds no folder to sys.path)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
