"""Interdict: a DNS resolver that enforces government app bans on the network. How it is built: `resolver/DESIGN.md`."""

__version__ = "0.1.0"
