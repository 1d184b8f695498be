"""ckpt-tune: the profiles package."""
