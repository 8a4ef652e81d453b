"""A kernel that costs little to start, as the benchmarks have it: it says its process id, and can be busy.

    python light_kernel.py CONNECTION_FILE

``sleep SECONDS`` is busy for so long; anything else is answered at once.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks import stub_kernel


class LightKernel(stub_kernel.StubKernel):
    def _execute(self, code: str, parent: bytes) -> None:
        super()._execute(code, parent)
        if code.startswith("sleep "):
            time.sleep(float(code.split()[1]))


if __name__ == "__main__":
    stub_kernel.StubKernel = LightKernel
    stub_kernel.main()
