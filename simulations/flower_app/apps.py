"""The installed package's apps under the names that pyproject.toml gives to Flower."""

from fedclust.server_app import app as server
from simulations.attacks import simulated_app

client = simulated_app()

__all__ = ["client", "server"]
