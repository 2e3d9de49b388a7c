//! The plan against a model of the world: small enough to see through, but with everything that a step changes.

mod gpus;
mod mounts;
mod placement;
mod properties;
mod serving;
mod ssh;
mod tables;
mod world;
