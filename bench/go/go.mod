module shoal/bench

go 1.25.0

require go-micro.dev/v6 v6.10.0
