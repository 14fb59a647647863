//! LLM calls: what to reserve for one, and what it really used.
//!
//! ```text
//! path -> Route: which Api -> LlmRequest: input, ceiling -> (reserved by the gateway)
//!                                                                |
//!         client <- Meter: passes the answer on, reads it <- Bill: reserved, told, settled once
//! ```

mod api;
mod edits;
mod input;
mod members;
mod request;
mod settings;
mod terms;
mod tiers;
mod tokens;
mod tools;
mod unseen;

mod bill;
mod meter;
mod output;
mod served;
mod sse;
mod usage;

pub(crate) use api::{Api, Maker, Route};
pub(crate) use bill::Bill;
pub(crate) use input::Allowances;
pub(crate) use meter::Meter;
pub(crate) use request::LlmRequest;
pub(crate) use served::Served;
pub(crate) use settings::{Settings, UseTokenizer};
pub(crate) use terms::Terms;
pub(crate) use tiers::Tiers;
pub(crate) use tools::Tool;
pub(crate) use unseen::Unseen;
pub(crate) use usage::TokenCounts;
