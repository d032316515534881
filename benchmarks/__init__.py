"""Measurements: one file per question, one JSON object per answer, each with the same envelope."""
