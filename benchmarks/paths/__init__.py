"""The hot paths, a file each: its SIZES, the smallest first, and `case(size, where)`."""
