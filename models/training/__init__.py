"""Data, training loops and recipes of the zoo."""
