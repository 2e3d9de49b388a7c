//! What a container serves, as Kubernetes' own objects: a Service without a selector, and an EndpointSlice that leads it to the
//! container's address while the container does its job.
//!
//! A report like the status, and written at the same moment: `wanted` says by a pure function of object and status what shall stand,
//! `publish` writes where that differs from what the watch has seen. Nothing that another made is touched: what is ours has an owner
//! reference to the object, by which the garbage collector removes it with the object.

mod publish;
mod wanted;
mod watch;

pub(crate) use publish::publish;
pub(crate) use watch::{Published, watch};
