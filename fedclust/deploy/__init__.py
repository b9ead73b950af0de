"""Deployment: the same federation on SuperNodes that hold their own data, over TLS, with known clients only."""
