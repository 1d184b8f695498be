"""Tests of `profiles.analysis`."""
