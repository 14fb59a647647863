//! Every algorithm against a plain, obviously right model, in both directions: never over its bound,
//! never denied what the model with the stated slack would allow. One thread; time and costs random.

#[path = "../models/mod.rs"]
mod models;

mod agreement;
mod answers;
mod history;

mod corrupt;
mod extremes;
mod fixed_window;
mod forgive;
mod holds;
mod late;
mod leases;
mod lesson;
mod overtaken;
mod room;
mod sliding_window_counter;
mod sliding_window_log;
mod table;
mod token_bucket;
mod writes;
