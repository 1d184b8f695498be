"""Tests of `profiles.store`."""
