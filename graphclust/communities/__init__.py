"""Community detection below the estimators: igraph and leidenalg behind one call, qualities, the resolution scan."""
