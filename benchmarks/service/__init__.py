"""Benchmarks of the service: load, faults, engines."""
