"""Store, discovery, balancing and drain under every fault at once; see `__main__`."""
