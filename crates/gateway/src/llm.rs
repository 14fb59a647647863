//! LLM calls: what to reserve for one, and what it really used.

mod chat;
mod members;
mod meter;
mod sse;
mod usage;

pub(crate) use chat::ChatRequest;
pub(crate) use meter::Meter;
