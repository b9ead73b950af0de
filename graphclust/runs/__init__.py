"""A run's configuration, record and folder; statistics and reports over many of them."""
