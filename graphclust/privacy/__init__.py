"""Differential privacy: exact noise, accounting, ledgers, prediction and audit."""
