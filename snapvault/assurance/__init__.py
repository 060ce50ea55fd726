"""What should exist, and the evidence that it comes back to life."""
