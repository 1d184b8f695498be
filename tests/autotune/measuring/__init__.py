"""Tests of `autotune.measuring`."""
