"""What ``benches/peers.py`` is made of.  Imports nothing of snapvault: it is a command like the others here."""
