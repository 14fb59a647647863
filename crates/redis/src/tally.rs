//! [`ServerTally`]: how often things happened, for metrics.

macro_rules! tally {
    (
        $(#[$about:meta])* $tally:ident, $event:ident:
        $($(#[$doc:meta])* $name:ident,)*
    ) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub struct $tally {
            $($name: std::sync::atomic::AtomicU64,)*
        }

        impl $tally {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> u64 {
                self.$name.load(std::sync::atomic::Ordering::Relaxed) // a lone count, read for people
            })*

            /// All counts, with their names.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name())),*]
            }
        }

        #[allow(non_camel_case_types, reason = "the names of the counts")]
        #[derive(Debug, Clone, Copy)]
        pub(crate) enum $event {
            $($name,)*
        }

        impl $tally {
            pub(crate) fn note(&self, event: $event) {
                self.add(event, 1);
            }

            pub(crate) fn add(&self, event: $event, times: u64) {
                let count = match event {
                    $($event::$name => &self.$name,)*
                };
                count.fetch_add(times, std::sync::atomic::Ordering::Relaxed); // nothing hangs on its order
            }
        }
    };
}

pub(crate) use tally;

tally! {
    /// How often things happened between this process and the server. For metrics: the counts are read
    /// one after the other, while they go on.
    ServerTally, Count:
    /// Scripts that were run, each one round trip.
    round_trips,
    /// Calls that were not answered in time.
    timeouts,
    /// Calls that ended in an error.
    failures,
    /// How often the circuit breaker opened.
    breaker_opened,
    /// Calls that were not made while the circuit breaker was open.
    not_tried,
    /// Scripts that the server did not know, as after a restart, and was given again.
    scripts_loaded,
    /// Calls made again because a calendar's window had turned meanwhile.
    windows_turned,
    /// Reservations whose answer came too late for their call, and which were given back.
    late_reservations,
}
