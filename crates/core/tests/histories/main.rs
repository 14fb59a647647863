//! Threads call a limiter, and what they were told is checked to be linearizable: there is an order of
//! the calls, in keeping with their real time, in which the plain model answers the same.
//!
//! Three schedulers run the same histories: the operating system, on real threads; shuttle, which
//! picks a random thread at every atomic operation (`RUSTFLAGS="--cfg shuttle"`); and in shuttle's
//! runs, some threads stop for ever in the middle of a call, which then may or may not have happened.
//!
//! That the checker can tell is shown on twins with planted bugs.
#![cfg(not(loom))]

#[path = "../models/mod.rs"]
mod models;

mod calls;
mod planted;
mod record;
mod schedule;
mod spec;
mod subjects;

use std::time::Duration;

use tidegate_core::{
    FixedWindow, Protocol, Quota, SlidingWindowCounter, SlidingWindowLog, TokenBucket,
};

use calls::Clocks;
use models::{Epochs, ExactBucket, Model, Queue, Windows};
use record::assert_linearizable;
use subjects::{Alone, Keyed};

/// Few units, and a window of few nanoseconds, so that calls meet at the limit.
fn quota() -> Quota {
    Quota::new(3, Duration::from_nanos(calls::WINDOW_NS)).unwrap()
}

fn alone<P: Protocol + Copy + Send + Sync + 'static>(
    protocol: P,
    model: impl Model + Send + Sync + 'static,
    clocks: Clocks,
) {
    assert_linearizable(clocks, 1, move || Alone::new(protocol), model);
}

fn keyed<P: Protocol + Copy + Send + Sync + 'static>(
    protocol: P,
    model: impl Model + Send + Sync + 'static,
    clocks: Clocks,
) {
    assert_linearizable(clocks, 3, move || Keyed::new(protocol), model);
}

fn bucket() -> TokenBucket {
    TokenBucket::new(quota()).unwrap()
}

fn window() -> FixedWindow {
    FixedWindow::new(quota()).unwrap()
}

fn counter() -> SlidingWindowCounter {
    SlidingWindowCounter::new(quota(), 2).unwrap()
}

fn log() -> SlidingWindowLog {
    SlidingWindowLog::new(quota()).unwrap()
}

#[test]
fn a_token_bucket_is_linearizable() {
    alone(bucket(), ExactBucket::new(quota(), 3), Clocks::InPhases);
    keyed(bucket(), ExactBucket::new(quota(), 3), Clocks::InPhases);
}

#[test]
fn a_fixed_window_is_linearizable() {
    alone(window(), Windows::new(quota()), Clocks::InPhases);
    keyed(window(), Windows::new(quota()), Clocks::InPhases);
}

#[test]
fn a_sliding_window_counter_is_linearizable() {
    alone(counter(), Epochs::new(quota(), 2), Clocks::InPhases);
    keyed(counter(), Epochs::new(quota(), 2), Clocks::InPhases);
}

/// A charge above the limit may hide a refund that it races with, as the log's docs say.
#[test]
fn a_sliding_window_log_is_linearizable() {
    alone(log(), Queue::new(quota()), Clocks::InPhasesOfOneKind);
    keyed(log(), Queue::new(quota()), Clocks::InPhasesOfOneKind);
}

/// Not keyed: a thread that is ahead may find a key idle, and give its slot away, before one that is
/// behind does. Nor the sliding windows: a thread that is ahead may have entered its epoch, or written
/// its time, and charge later. Those are held to their bounds by the models.
#[test]
fn one_word_is_linearizable_while_threads_disagree_on_the_time() {
    alone(bucket(), ExactBucket::new(quota(), 3), Clocks::Apart);
    alone(window(), Windows::new(quota()), Clocks::Apart);
}
