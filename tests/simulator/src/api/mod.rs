//! The methods of the API. Each file is a part of its tree; `dispatch` is the table of what is served.

#![expect(
    clippy::unnecessary_wraps,
    reason = "every handler answers an outcome, whether it can fail or not"
)]

mod access;
mod cluster;
mod lxc;
mod node;
mod pools;
mod storage;
mod tasks;

use std::{collections::BTreeMap, sync::Arc};

use futures::future::{BoxFuture, FutureExt};

pub(crate) use lxc::{start_by_host, stopped};

use crate::{
    auth::access::Identity,
    core::Core,
    reply::{Failure, Outcome},
};

/// A call whose permissions and parameters have been checked.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) core: Arc<Core>,
    pub(crate) who: Identity,
    /// The node that carries it out.
    pub(crate) node: String,
    pub(crate) params: BTreeMap<String, String>,
}

impl Call {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.params.get(key).map(String::as_str)
    }

    /// A parameter that is given and not empty.
    pub(crate) fn given(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    /// A parameter that the schema requires.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key) == Some("1")
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }

    pub(crate) fn vmid(&self) -> u32 {
        self.text("vmid").parse().unwrap_or(0)
    }

    /// Asks for a privilege.
    pub(crate) fn demand(&self, path: &str, privilege: &str) -> Result<(), Failure> {
        if self.core.state().access.may(&self.who, path, privilege) {
            Ok(())
        } else {
            Err(Failure::forbidden(&format!("{path}, {privilege}")))
        }
    }
}

/// Carries a call out.
pub(crate) fn dispatch(
    template: &'static str,
    method: &'static str,
    call: Call,
) -> BoxFuture<'static, Outcome> {
    if let Some(rest) = template.strip_prefix("/nodes/{node}/lxc") {
        return lxc::dispatch(rest, method, call);
    }
    async move {
        match (method, template) {
            ("GET", "/") => access::root(),
            ("GET", "/version" | "/nodes/{node}/version") => cluster::version(&call),
            ("GET", "/access/ticket") => Ok(crate::reply::Reply::null()),
            ("POST", "/access/ticket") => access::login(&call),
            ("GET", "/access/domains") => access::domains(),
            ("GET", "/access/permissions") => access::permissions(&call),
            ("GET", "/access/users") => access::users(&call),
            ("GET", "/cluster/resources") => cluster::resources(&call),
            ("GET", "/cluster/status") => cluster::status(&call),
            ("GET", "/cluster/nextid") => cluster::nextid(&call),
            ("GET", "/cluster/tasks") => tasks::cluster(&call),
            ("GET", "/cluster/options") => cluster::options(),
            ("GET", "/nodes") => node::list(&call),
            ("GET", "/nodes/{node}") => node::index(),
            ("GET", "/nodes/{node}/status") => node::status(&call),
            ("GET", "/nodes/{node}/time") => node::time(),
            ("GET", "/nodes/{node}/dns") => node::dns(),
            ("GET", "/nodes/{node}/network") => node::network(&call),
            ("GET", "/nodes/{node}/qemu") => Ok(crate::reply::Reply::data(serde_json::json!([]))),
            ("GET", "/nodes/{node}/hardware/pci") => node::pci(&call),
            ("GET", "/nodes/{node}/certificates/info") => node::certificates(&call),
            ("GET", "/storage") => storage::configured(&call),
            ("GET", "/nodes/{node}/storage") => storage::list(call).await,
            ("GET", "/nodes/{node}/storage/{storage}/status") => storage::status(call).await,
            ("GET", "/nodes/{node}/storage/{storage}/content") => storage::content(&call),
            ("GET", "/nodes/{node}/tasks") => tasks::list(&call),
            ("GET", "/nodes/{node}/tasks/{upid}/status") => tasks::status(&call),
            ("GET", "/nodes/{node}/tasks/{upid}/log") => tasks::log(&call),
            ("DELETE", "/nodes/{node}/tasks/{upid}") => tasks::stop(call).await,
            ("GET", "/pools") => pools::list(&call),
            ("GET", "/pools/{poolid}") => pools::get(&call),
            ("POST", "/pools") => pools::create(&call),
            ("PUT", "/pools") => pools::update(&call),
            ("DELETE", "/pools") => pools::delete(&call),
            _ => Err(unsimulated(method, template)),
        }
    }
    .boxed()
}

/// A documented method that this simulator does not have; a real Proxmox VE would.
fn unsimulated(method: &str, template: &str) -> Failure {
    Failure::json(
        501,
        format!("Method '{method} {template}' is not simulated"),
    )
}
