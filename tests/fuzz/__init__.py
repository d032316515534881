"""Fuzzing led by coverage (Atheris). `make fuzz` runs each target some thousand times; it needs the extra `fuzz`.

A target takes bytes and either ends in an error that it knows or in none; any other exception, a hang or a crash is a finding, which is
written to build/fuzz with the bytes that lead to it.
"""
