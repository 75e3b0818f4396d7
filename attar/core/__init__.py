"""What everything stands on: the store, configuration, random keys, the fixed batch, progress, errors."""
