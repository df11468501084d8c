"""Small runs of the proofs in bench/reliability."""
