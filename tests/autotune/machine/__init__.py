"""Tests of `autotune.machine`."""
