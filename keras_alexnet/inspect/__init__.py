"""Pictures and tables of networks, data and runs."""
