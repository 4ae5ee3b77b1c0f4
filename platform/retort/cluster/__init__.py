"""Machines: which a cluster may start, what a recipe asks of them, and what a run waits for."""
