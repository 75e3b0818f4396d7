"""Networks that label, checked before they do; soft labels of every view."""
