"""What the integration tests share: a gateway as a black box, its processes, and clients of its API."""
