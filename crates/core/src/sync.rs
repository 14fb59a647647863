//! The one place that picks the atomics: portable ones, or loom's under `cfg(loom)`.

#[cfg(not(loom))]
pub use portable_atomic::AtomicU64;
#[cfg(not(loom))]
pub(crate) use portable_atomic::{AtomicU128, Ordering, fence};

#[cfg(loom)]
pub mod model;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{Ordering, fence};
#[cfg(loom)]
pub use model::AtomicU64;
#[cfg(loom)]
pub(crate) use model::AtomicU128;

/// `const fn` but for loom, whose atomics cannot be made in a constant.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        #[cfg(not(loom))]
        $(#[$meta])* $vis const fn $($rest)*
        #[cfg(loom)]
        $(#[$meta])* $vis fn $($rest)*
    };
}
pub(crate) use const_unless_loom;
