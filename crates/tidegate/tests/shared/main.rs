//! Tables in a file, shared by real processes: exact together, and sound after any of them dies.

mod bad_files;
mod exact;
mod holds;
mod images;
mod inspect;
mod kills;
mod time;
mod worker;
