"""Benchmarks of the cryptosystem's primitives."""
