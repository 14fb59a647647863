//! HTTP servers with and without limits, and what calls them.
//!
//! ```text
//! client (this thread): 2 x 32 connections -> loopback -> server (a thread): axum -> layer -> "hello"
//! ```

mod call;
mod client;
mod routers;
mod server;

pub use call::{Hello, answered, request};
pub use client::Client;
pub use routers::{Limited, Spent, empty_layer, governed, ours, plain, same_fields};
pub use server::Server;
