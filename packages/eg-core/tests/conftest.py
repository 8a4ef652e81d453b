"""Helper modules beside the tests are importable by name (pytest's importlib mode leaves that to us)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
