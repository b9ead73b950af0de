"""Whole federations on one machine: engines, scenarios, runs."""
