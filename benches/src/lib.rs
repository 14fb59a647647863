//! Benchmarks of tidegate beside its peers: `cargo bench`. Each file in `benches/` answers one question.
