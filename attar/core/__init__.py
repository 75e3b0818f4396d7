"""What everything stands on: store, configuration, random keys, fixed batch, errors."""
