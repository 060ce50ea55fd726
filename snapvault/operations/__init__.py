"""One verb a file.  Each works on an open Repository and gives a frozen result."""
