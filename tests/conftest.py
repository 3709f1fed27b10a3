"""Shared fixtures: no network, one Ray."""
