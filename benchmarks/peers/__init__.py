"""The same network in other systems; each file needs one of them installed."""
