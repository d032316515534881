"""Trainable layers with power-of-two weights and look-ups, as torch modules."""
