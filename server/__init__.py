"""The service: answers encrypted requests with keys that cannot decrypt them."""
