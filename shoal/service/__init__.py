"""Package service is where the other seven interfaces meet."""
