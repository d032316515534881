"""What a Program costs and how much noise it bears, without a ciphertext: look-up noise, windows, operations, parameter search."""
