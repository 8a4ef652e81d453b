"""Core features as plugins, through the same seam as anybody's. They import the seam and nothing else of the core."""
