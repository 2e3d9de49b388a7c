//! The client against the simulated Proxmox, which was written from the same recordings by other hands: two readings of one
//! API that have to agree.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by a panic"
)]

mod access;
mod faults;
mod host;
mod lifecycle;
