//! The one place that picks the atomics: portable ones, or those of a scheduler of models, loom or
//! shuttle, under `cfg(loom)` and `cfg(shuttle)`.

#[cfg(not(any(loom, shuttle)))]
pub use portable_atomic::AtomicU64;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use portable_atomic::{AtomicU128, Ordering, fence};

#[cfg(any(loom, shuttle))]
pub mod model;
#[cfg(any(loom, shuttle))]
pub use model::AtomicU64;
#[cfg(any(loom, shuttle))]
pub(crate) use model::{AtomicU128, Ordering, fence};

/// `const fn` but for models, whose atomics cannot be made in a constant.
macro_rules! const_unless_model {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        #[cfg(not(any(loom, shuttle)))]
        $(#[$meta])* $vis const fn $($rest)*
        #[cfg(any(loom, shuttle))]
        $(#[$meta])* $vis fn $($rest)*
    };
}
pub(crate) use const_unless_model;
