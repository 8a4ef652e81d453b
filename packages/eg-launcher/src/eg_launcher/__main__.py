"""``python -m eg_launcher``."""

import sys

from eg_launcher.cli import main

if __name__ == "__main__":
    sys.exit(main())
