"""Engines: what carries the messages between a ServerApp and its ClientApps."""
