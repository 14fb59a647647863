//! The paths that are compared, by topic.

mod http;
mod keyed;
mod lone;
mod memory;
mod shared;
mod threads;
mod windows;

pub use keyed::three_layers;

use crate::measure::Effort;
use crate::report::Row;

/// A topic: a name to choose it by, and its rows.
pub type Topic = (&'static str, fn(Effort) -> Vec<Row>);

/// All topics. The large tables come last.
pub const TOPICS: [Topic; 11] = [
    ("lone", lone::rows),
    ("windows", windows::rows),
    ("threads", threads::rows),
    ("policy", keyed::policy),
    ("http", http::rows),
    ("memory", memory::rows),
    ("shared", shared::rows),
    ("keyed 1 k", keyed::thousand),
    ("keyed 100 k", keyed::hundred_thousand),
    ("keyed 1 M", keyed::million),
    ("keyed 10 M", keyed::ten_million),
];
