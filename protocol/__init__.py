"""What client and server share of the wire: the container of keys and ciphertexts, tensor framing, and JSON schemas."""
