"""``python -m eg_core`` is ``eg``."""

import sys

from eg_core.cli.main import main

sys.exit(main())
