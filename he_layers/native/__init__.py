"""The compiled kernel; only `he_layers.crypto` imports it."""
