"""bench: compares Shoal with its peers on the machine it runs on."""
