"""Tests of the `adjoint` package."""
