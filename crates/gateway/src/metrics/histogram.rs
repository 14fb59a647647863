//! [`Histogram`]: durations by their size, counted without a lock.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{add, read};

/// The upper bounds of the buckets, in microseconds. Above them there is one more.
const BOUNDS_US: [u64; 13] =
    [10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000];

/// Durations by their size.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, span: Duration) {
        let us = u64::try_from(span.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().take_while(|bound| us > **bound).count();
        add(&self.buckets[bucket], 1);
        add(&self.sum_us, us);
    }

    /// The bound, in microseconds, that so many of 100 durations do not pass; 0 when there are none.
    pub(super) fn percentile_us(&self, percent: u64) -> u64 {
        let counts: Vec<u64> = self.buckets.iter().map(read).collect();
        let wanted = (counts.iter().sum::<u64>() * percent).div_ceil(100);
        let mut sum = 0;
        let reached = counts.iter().position(|count| {
            sum += count;
            sum >= wanted
        });
        if wanted == 0 {
            0
        } else {
            reached.and_then(|at| BOUNDS_US.get(at)).copied().unwrap_or(u64::MAX)
        }
    }

    /// As it is at this moment.
    pub(super) fn snapshot(&self) -> Snapshot {
        let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().map(read)).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Snapshot { sum_s: read(&self.sum_us) as f64 / 1e6, count, buckets }
    }
}

/// A histogram as it was at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    sum_s: f64,
    count: u64,
    buckets: Vec<(f64, u64)>,
}

impl EncodeMetric for Snapshot {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.encode_histogram::<NoLabelSet>(self.sum_s, self.count, &self.buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_bucket_whose_bound_it_does_not_pass() {
        let histogram = Histogram::default();
        for nanos in [0, 10_000, 10_001, 999_999_999, 1_000_000_001, u64::MAX] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        assert_eq!([1, 50, 80].map(|percent| histogram.percentile_us(percent)), [10, 25, u64::MAX]);
        assert_eq!(Histogram::default().percentile_us(99), 0);
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.count, 6);
        let counts: Vec<_> = snapshot.buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
