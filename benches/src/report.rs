//! What was measured, as a table for people or as JSON.

use std::fmt;

use serde::Serialize;

/// One figure, and the target that it is held against.
///
/// As JSON, a row about memory has no nanoseconds (`ours_ns` and `peer_ns` are null), and has
/// `ours_bytes` and `peer_bytes` instead.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was done.
    pub path: String,
    /// Nanoseconds for one of ours.
    pub ours_ns: Option<f64>,
    /// Bytes of one of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_bytes: Option<f64>,
    /// Whom it is compared with.
    pub peer: String,
    /// Nanoseconds for one of theirs.
    pub peer_ns: Option<f64>,
    /// Bytes of one of theirs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_bytes: Option<f64>,
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
    /// The same, or at most so many nanoseconds.
    AtMostOrNs(f64, f64),
    /// The peer takes at least so many times what ours takes.
    AtLeast(f64),
    /// Ours takes at most so many bytes, whatever the peer takes.
    Bytes(f64),
}

impl Row {
    /// A row from what was measured: in nanoseconds, unless the target is in bytes.
    #[must_use]
    pub fn new(
        path: impl Into<String>,
        ours: f64,
        peer: &str,
        theirs: f64,
        target: Target,
    ) -> Self {
        let (ratio, met) = match target {
            Target::AtMost(most) => (ours / theirs, ours <= most * theirs),
            Target::AtMostOrNs(most, ns) => (ours / theirs, ours <= most * theirs || ours <= ns),
            Target::AtLeast(least) => (theirs / ours, theirs >= least * ours),
            Target::Bytes(most) => (ours / theirs, ours <= most),
        };
        let in_ns = !matches!(target, Target::Bytes(_));
        Self {
            path: path.into(),
            ours_ns: in_ns.then_some(ours),
            ours_bytes: (!in_ns).then_some(ours),
            peer: peer.to_owned(),
            peer_ns: in_ns.then_some(theirs),
            peer_bytes: (!in_ns).then_some(theirs),
            floor_ns: None,
            ratio,
            target,
            met,
        }
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
            Self::AtMostOrNs(most, ns) => write!(f, "<= {most} x or {ns} ns"),
            Self::AtLeast(least) => write!(f, ">= {least} x faster"),
            Self::Bytes(most) => write!(f, "<= {most} bytes"),
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
        let time = |ns: Option<f64>| ns.map(|ns| format!("{ns:.2}"));
        let memory = |bytes: Option<f64>| bytes.map(|bytes| format!("{bytes:.2} B"));
        let ours = time(self.ours_ns).or_else(|| memory(self.ours_bytes)).unwrap_or_default();
        let theirs = time(self.peer_ns).or_else(|| memory(self.peer_bytes)).unwrap_or_default();
        let floor = time(self.floor_ns).unwrap_or_default();
        write!(
            f,
            "{:<47}  {ours:>7}   {:<18}  {theirs:>7}   {floor:>8}   {:>5.2}  {}{}",
            self.path,
            self.peer,
            self.ratio,
            self.target,
            if self.met { "" } else { "  MISSED" },
        )
    }
}
