"""The commands that need no extra: one module each, with its `Settings` and its `run`."""
