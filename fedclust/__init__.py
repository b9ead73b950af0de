"""Clustered federated learning on Flower: clients are grouped because one model cannot serve them all."""
