"""Tests of `autotune.runtime`."""
