"""Measurements: one file for each question; results are JSON objects with the same envelope."""
