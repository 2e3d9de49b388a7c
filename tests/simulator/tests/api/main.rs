//! The simulator's API as a client sees it, one module a topic.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests say what they expect"
)]

mod access;
mod chain;
mod client;
mod cluster;
mod config;
mod console;
mod http;
mod power;
mod rules;
mod snapshots;
mod soak;
mod storages;
mod trouble;
mod volumes;
