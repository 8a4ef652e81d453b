"""Side by side with the incumbents, in one run: ``python -m benchmarks``. The modules are described in README.md."""
