//! The client against small servers of its own: recorded answers, connections that break, certificates, logins, consoles.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on says so by a panic"
)]

mod auth;
mod console;
mod recorded;
mod server;
mod transport;
mod trust;
