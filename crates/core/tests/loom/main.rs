//! Every protocol step of every storage, in every interleaving that loom finds, with threads that
//! stop for ever at any atomic operation, and clocks that differ between threads.
//!
//! Run by `cargo xtask test`, with `RUSTFLAGS="--cfg loom"`.
#![cfg(loom)]

mod admitted;

mod counter;
mod holds;
mod leased;
mod log;
mod lone;
mod table;
