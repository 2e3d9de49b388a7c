//! A network device as the spec wants it, merged into what Proxmox holds.
//!
//! A `netN` is always sent as the read-back string with edits: without `hwaddr` Proxmox would make up a new MAC each time.

use proxmox_client::PropertyString;

/// The sub-keys that a spec speaks for; what else stands in a `netN` (`type`, `link_down`, `trunks`…) is left as it is.
const OWNED: [&str; 10] = [
    "name", "bridge", "ip", "gw", "ip6", "gw6", "tag", "mtu", "rate", "firewall",
];

/// One network device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WantedNet {
    /// Name inside the container.
    pub name: String,
    /// Bridge on the node.
    pub bridge: String,
    /// The other sub-keys in Proxmox's spelling.
    pub properties: Vec<(&'static str, String)>,
    /// A fixed MAC address, upper-case.
    pub hwaddr: Option<String>,
}

impl WantedNet {
    /// `current` with this device's properties put in; equal to `current` where nothing differs.
    pub fn merge(&self, current: Option<&PropertyString>) -> PropertyString {
        let mut net = current.cloned().unwrap_or_default();
        net.set("name", &self.name);
        net.set("bridge", &self.bridge);
        if let Some(hwaddr) = &self.hwaddr
            && !net
                .get("hwaddr")
                .is_some_and(|is| is.eq_ignore_ascii_case(hwaddr))
        {
            net.set("hwaddr", hwaddr);
        }
        for key in OWNED
            .into_iter()
            .filter(|k| !matches!(*k, "name" | "bridge"))
        {
            match self.properties.iter().find(|(k, _)| *k == key) {
                Some((_, value)) => drop(net.set(key, value)),
                None => drop(net.remove(key)),
            }
        }
        net
    }

    /// The static IPv4 address without its prefix length.
    pub fn address(&self) -> Option<&str> {
        let (_, ip) = self.properties.iter().find(|(k, _)| *k == "ip")?;
        ip.split_once('/').map(|(address, _)| address)
    }

    /// The VLAN tag.
    pub fn vlan(&self) -> Option<&str> {
        self.properties
            .iter()
            .find(|(k, _)| *k == "tag")
            .map(|(_, v)| v.as_str())
    }
}
