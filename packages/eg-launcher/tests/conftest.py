"""Tests of the launcher share helpers by name; nothing else puts this folder on the path."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
async def kernel_host():
    """Starts real kernels with a real spawner, and leaves none behind."""
    from launcher_kernel_host import KernelHost

    host = await KernelHost.open()
    try:
        yield host
    finally:
        await host.close()
