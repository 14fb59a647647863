//! The plain model of a sliding window.

use tidegate_core::Timestamp;

/// The obviously right sliding window: every admitted unit with its time, summed up each time.
#[derive(Debug, Clone, Default)]
pub struct Timestamps(pub Vec<(Timestamp, u64)>);

impl Timestamps {
    pub fn push(&mut self, at: Timestamp, units: u64) {
        self.0.push((at, units));
    }

    /// The units in `(now - window, now]`, and any later.
    pub fn in_window(&self, now: Timestamp, window_ns: u64) -> u64 {
        let counts =
            |at: Timestamp| at.as_nanos() as u128 + window_ns as u128 > now.as_nanos() as u128;
        self.0.iter().filter(|(at, _)| counts(*at)).map(|(_, units)| units).sum()
    }

    /// The most units in any span of one window's length.
    pub fn most_in_any_window(&self, window_ns: u64) -> u64 {
        let starts = self.0.iter().map(|(at, _)| at.as_nanos());
        starts
            .map(|start| {
                let inside = |at: Timestamp| {
                    (start..start.saturating_add(window_ns)).contains(&at.as_nanos())
                };
                self.0.iter().filter(|(at, _)| inside(*at)).map(|(_, units)| units).sum()
            })
            .max()
            .unwrap_or(0)
    }
}
