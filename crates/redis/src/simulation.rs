//! [`SimulatedServer`]: what runs the scripts in simulations.

use std::fmt;
use std::pin::Pin;

use redis::Value;

use crate::script::Operation;

/// What runs the scripts in the place of a server, in simulations: everything else is as always.
pub trait SimulatedServer: fmt::Debug + Send + Sync {
    /// Answers what the operation's script would, of these keys and binary arguments.
    fn run(&self, operation: Operation, keys: &[&str], arguments: &[&[u8]]) -> Running;
}

/// A server at work.
pub type Running = Pin<Box<dyn Future<Output = Value> + Send>>;
