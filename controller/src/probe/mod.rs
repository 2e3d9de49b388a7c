//! Questions to what runs in a container, over the network: does vLLM serve the model, does an HTTP service answer as expected?
//!
//! Each probe is one look with short limits; its answer says what was seen, never what to do about it. Containers whose
//! network the operator has no route to are reached through a proxy. Not here: when to probe, and what an answer means for an object.

mod client;
mod figures;
mod http;
#[cfg(test)]
pub(crate) mod tests;
mod vllm;

pub use client::{ProbeClient, ProxyInvalid};
pub use figures::VllmFigures;
pub use http::{FirstRun, HttpProbe, HttpTarget};
pub use vllm::{VllmProbe, VllmTarget, VllmWatch};
