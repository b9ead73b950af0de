"""The installed package's apps under the names that pyproject.toml gives to Flower."""

from fedclust.client_app import app as client
from fedclust.server_app import app as server

__all__ = ["client", "server"]
