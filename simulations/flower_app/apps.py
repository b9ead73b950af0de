"""The installed package's apps under the names that pyproject.toml gives to Flower."""

from fedclust.server_app import server_app
from simulations.attacks import simulated_app
from simulations.events import eventful

client, server = simulated_app(), server_app(around=eventful)

__all__ = ["client", "server"]
