"""Package conformance has one suite per interface; a plugin that passes it fits."""
