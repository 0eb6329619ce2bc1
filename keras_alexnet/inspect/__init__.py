"""Looking at networks, data and runs."""
