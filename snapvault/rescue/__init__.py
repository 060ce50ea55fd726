"""The files that every repository carries: how to get the data out without snapvault (docs/format/README.md).

They are data here: ``rescue-1.py`` imports nothing of this package, and nothing of this package imports it.
"""
