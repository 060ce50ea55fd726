"""What belongs to an operating system, one module each; importing it never fails anywhere."""
