"""What client and server share: the container of keys and ciphertexts, tensor framing, JSON schemas, and the scaling of values."""
