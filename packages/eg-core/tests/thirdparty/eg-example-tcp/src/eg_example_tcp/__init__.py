"""An example of somebody's own backend."""
