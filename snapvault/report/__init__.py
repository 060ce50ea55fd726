"""What is known, for people: the board for a terminal, a browser and Prometheus; the evidence as a page."""
