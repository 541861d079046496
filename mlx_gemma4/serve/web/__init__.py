"""Sockets: routes, headers, bodies and streams. What a request means is decided elsewhere."""
