"""Federations: labelled data over clients, with the shifts that were planted kept apart as truth."""
