"""The images that an evaluation works with, in memory: a distilled set's own, and real ones beside it."""
