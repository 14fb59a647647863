//! What was measured, as a table for people or as JSON.

use std::fmt;

use serde::Serialize;

/// One figure, and the target that it is held against.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was done.
    pub path: String,
    /// Nanoseconds for one of ours.
    pub ours_ns: f64,
    /// Whom it is compared with.
    pub peer: String,
    /// Nanoseconds for one of theirs.
    pub peer_ns: f64,
    /// Nanoseconds for the bare operations, where that is something else than the peer.
    pub floor_ns: Option<f64>,
    /// The ratio that the target is about.
    pub ratio: f64,
    /// The target.
    pub target: Target,
    /// Whether it is met.
    pub met: bool,
}

/// What a ratio should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Ours takes at most so many times what the peer takes.
    AtMost(f64),
    /// The peer takes at least so many times what ours takes.
    AtLeast(f64),
}

impl Row {
    /// A row from what was measured.
    #[must_use]
    pub fn new(
        path: impl Into<String>,
        ours_ns: f64,
        peer: &str,
        peer_ns: f64,
        target: Target,
    ) -> Self {
        let (ratio, met) = match target {
            Target::AtMost(most) => (ours_ns / peer_ns, ours_ns <= most * peer_ns),
            Target::AtLeast(least) => (peer_ns / ours_ns, peer_ns >= least * ours_ns),
        };
        let (path, peer) = (path.into(), peer.to_owned());
        Self { path, ours_ns, peer, peer_ns, floor_ns: None, ratio, target, met }
    }

    /// The same row with the floor beside it.
    #[must_use]
    pub fn with_floor(self, floor_ns: f64) -> Self {
        Self { floor_ns: Some(floor_ns), ..self }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {most} x"),
            Self::AtLeast(least) => write!(f, ">= {least} x faster"),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The head of the table.
pub const HEAD: &str = "\
path                                             ours ns   than                     ns   floor ns   ratio  target
-----------------------------------------------  -------   ------------------  -------   --------   -----  ---------------";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let floor = self.floor_ns.map_or_else(String::new, |floor| format!("{floor:.2}"));
        write!(
            f,
            "{:<47}  {:>7.2}   {:<18}  {:>7.2}   {floor:>8}   {:>5.2}  {}{}",
            self.path,
            self.ours_ns,
            self.peer,
            self.peer_ns,
            self.ratio,
            self.target,
            if self.met { "" } else { "  MISSED" },
        )
    }
}
