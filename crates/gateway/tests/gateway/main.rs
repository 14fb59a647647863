//! The gateway as a process, with real clients and upstreams on loopback.

mod browser;
mod process;
mod provider;
#[path = "../../../redis/tests/servers/mod.rs"]
mod servers;

mod chat;
mod command_line;
mod identity;
mod limits;
mod llm;
mod operation;
mod page;
mod passing_on;
mod raw;
mod shared_rules;
mod state;
mod storm;
mod traces;
mod vendor_fields;
