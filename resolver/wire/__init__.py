"""DNS as values: registries, names, queries, replies. No sockets, no clock, no policy."""
