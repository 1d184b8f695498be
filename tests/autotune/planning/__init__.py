"""Tests of `autotune.planning`."""
