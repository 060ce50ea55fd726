"""Ids, errors, events, control and the clock: what every other layer may import."""
