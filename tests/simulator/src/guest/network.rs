//! The guests' network: who has which address, and what listens on it.
//!
//! There are no packets: a connection to a container's address is a pair of pipes to whatever stand-in listens there. Where nothing does, the
//! answer is what a real network would give.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::DuplexStream;

use crate::guests::{GuestInterface, NetSpec};

/// Why a connection can't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreached {
    /// No running container has the address.
    NoHost,
    /// Nothing listens on the port.
    Refused,
}

/// Takes one connection.
pub(super) type Service = Arc<dyn Fn(DuplexStream) + Send + Sync>;

/// The open ports of one guest.
#[derive(Default, Clone)]
pub(super) struct Ports(Arc<Mutex<HashMap<u16, Service>>>);

/// An open port; closed by dropping it.
pub(super) struct Listening {
    ports: Ports,
    port: u16,
}

impl Ports {
    fn open(&self) -> MutexGuard<'_, HashMap<u16, Service>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a port; nothing where it is taken.
    pub(super) fn listen(&self, port: u16, service: Service) -> Option<Listening> {
        let mut open = self.open();
        if open.contains_key(&port) {
            return None;
        }
        open.insert(port, service);
        Some(Listening {
            ports: self.clone(),
            port,
        })
    }

    pub(super) fn connect(&self, port: u16) -> Result<DuplexStream, Unreached> {
        let service = self.open().get(&port).cloned().ok_or(Unreached::Refused)?;
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        service(theirs);
        Ok(ours)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.ports.open().remove(&self.port);
    }
}

/// The interfaces of a guest as it boots. DHCP gives out 10.0.0.200 and up, by VMID.
pub(super) fn interfaces(vmid: u32, nets: &[NetSpec]) -> Vec<GuestInterface> {
    let cidr = |net: &NetSpec| match net.ip.as_deref() {
        None | Some("" | "manual") => None,
        Some("dhcp") => Some(format!("10.0.0.{}/24", 200 + vmid % 50)),
        Some(fixed) => Some(fixed.to_owned()),
    };
    nets.iter()
        .map(|net| GuestInterface {
            name: net.name.clone(),
            hwaddr: net.hwaddr.clone(),
            cidr: cidr(net),
        })
        .collect()
}

/// The address in a CIDR.
pub(super) fn address(cidr: &str) -> Option<Ipv4Addr> {
    cidr.split('/').next()?.parse().ok()
}

/// The network that a CIDR lies in, as routes print it.
pub(super) fn network(cidr: &str) -> Option<String> {
    let (host, bits) = cidr.split_once('/')?;
    let (host, bits): (Ipv4Addr, u32) = (host.parse().ok()?, bits.parse().ok()?);
    let mask = u32::MAX.checked_shl(32_u32.checked_sub(bits)?).unwrap_or(0);
    Some(format!("{}/{bits}", Ipv4Addr::from(host.to_bits() & mask)))
}
