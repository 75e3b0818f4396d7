"""Methods and settings compared: each experiment is run as resumable items, and returns what it came to."""
