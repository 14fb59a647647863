//! What is logged, and how: to stderr, as text or as JSON. Never a secret, and nothing of what people ask.

use std::io::{IsTerminal, stderr};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use tidegate::policy::{Source, Spanned};
use tidegate::{Cost, Limiter, Quota, SystemClock, TokenBucket};
use tracing_subscriber::EnvFilter;

use crate::config::Wrong;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

/// `[log]` as it stands.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogSpec {
    format: Option<Spanned<String>>,
}

impl LogSpec {
    pub(crate) fn build(&self, source: &Source<'_>, wrong: &mut Wrong) -> Format {
        let Some(format) = &self.format else { return Format::Text };
        match format.get_ref().as_str() {
            "text" => Format::Text,
            "json" => Format::Json,
            other => {
                let message = format!("`{other}` is not known; use one of `text`, `json`");
                wrong.add(source.error(format.span(), "log.format", &message));
                Format::Text
            }
        }
    }
}

/// Logs from now on, at the level that `RUST_LOG` says (by default, `info`).
pub(crate) fn init(format: Format) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        Format::Text => lines.with_ansi(stderr().is_terminal()).with_target(false).init(),
        Format::Json => lines.json().flatten_event(true).with_target(false).init(),
    }
}

/// Lines of one kind that are written in a second. A flood of calls must not become a flood of lines.
const LINES_PER_SECOND: u64 = 10;

/// Whether one more line of a kind is to be written now, and how many were left out before it.
pub(crate) fn denial_line() -> Option<u64> {
    static LINES: LazyLock<Option<Limiter<TokenBucket>>> = LazyLock::new(|| {
        let bucket = TokenBucket::new(Quota::per_second(LINES_PER_SECOND)).ok()?;
        Some(Limiter::new(bucket).with_clock(SystemClock::new()))
    });
    static LEFT_OUT: AtomicU64 = AtomicU64::new(0);
    let is_written = LINES.as_ref().is_none_or(|lines| lines.decide(Cost::ONE).is_allow());
    if is_written {
        Some(LEFT_OUT.swap(0, Ordering::Relaxed)) // a lone count
    } else {
        LEFT_OUT.fetch_add(1, Ordering::Relaxed); // as above
        None
    }
}
