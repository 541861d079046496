"""Protocols as pure state machines: requests in, events out. No sockets, no model, no clock."""
