"""The training engine: devices, the loop, its state on disk."""
