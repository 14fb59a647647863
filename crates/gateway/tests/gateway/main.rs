//! The gateway as a process, with real clients and upstreams on loopback.

mod process;
mod provider;

mod chat;
mod command_line;
mod identity;
mod limits;
mod llm;
mod operation;
mod page;
mod passing_on;
mod raw;
mod state;
mod storm;
mod traces;
mod vendor_fields;
