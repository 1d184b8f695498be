"""Tests of `profiles.records`."""
