// Stands in for modules that old Go Micro releases list but no package built here imports.
module shoal.test/absent
