"""The recoverability board: one view model, drawn for a terminal, a browser and Prometheus."""
