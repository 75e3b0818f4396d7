"""What all stand on: store, configuration, random keys, fixed batch, errors."""
