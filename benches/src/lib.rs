//! Benchmarks of tidegate beside its peers, and beside what the machine allows at most.
//!
//! - `cargo bench` runs the criterion benches: each file in `benches/` answers one question.
//! - `cargo xtask bench` runs the comparison: every path in [`paths`], ours, the peers and the floor in
//!   turns, with medians and ratios.
//! - `cargo xtask counts` counts instructions, which are the same in every run: [`counts`].

pub mod counts;
pub mod floor;
pub mod http;
pub mod keys;
pub mod measure;
pub mod memory;
pub mod paths;
pub mod peers;
pub mod plot;
pub mod report;
