//! One module for each family of endpoints: what goes in, what comes out. No decision is taken here.

pub(crate) mod cluster;
pub(crate) mod container;
pub(crate) mod node;
pub(crate) mod snapshot;
pub(crate) mod storage;
pub(crate) mod task;
