"""What went wrong, said so that the user can mend it. The command line prints these without a traceback."""


class AttarError(Exception):
    """Bad input: names the file, field or class, and says what to do."""


class BadImage(AttarError):
    """An image file that cannot be decoded."""
