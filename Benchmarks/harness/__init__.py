"""What the programs in Benchmarks/ share: processes, clusters, load clients, and the tables that come out."""
