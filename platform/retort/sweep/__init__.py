"""Sweeps: trials of one student over fields of a recipe, under Ray Tune."""
