module shoal/bench

go 1.25.0

require go-micro.dev/v5 v5.30.0
