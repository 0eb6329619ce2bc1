"""Benchmarks: one program per question, peers measured in the same run."""
