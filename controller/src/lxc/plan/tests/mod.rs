//! The plan against a model of the world: small enough to see through, but with everything that a step changes.

mod mounts;
mod properties;
mod tables;
mod world;
