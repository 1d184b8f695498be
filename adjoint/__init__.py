"""ckpt-tune: the adjoint package."""
