"""Which kernels there are: ``finder`` reads kernelspecs from disk, ``legacy`` knows which backend one means."""
