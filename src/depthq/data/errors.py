class DataError(ValueError):
    """Images that are missing, corrupt or of the wrong kind; the message says which, and the remedy."""
