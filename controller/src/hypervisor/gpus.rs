//! The map of a hypervisor's GPUs, put together from three sources, each knowing something that the others don't: the PCI bus says which
//! cards there are, guests' drivers which index, UUID and memory each has, the objects' status who holds it. What was known stays.

use std::collections::{BTreeMap, BTreeSet};

use phoenix_crds::{LxcStatus, Quantity, Sharing, hypervisor::HostGpuStatus, status::GpuStatus};
use proxmox_client::PciDevice;

use crate::guest::{GpuFact, GuestFacts};

/// A GPU by node and index.
type Place = (String, i64);

/// What objects and their guests tell.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Of each GPU that somebody has.
    cards: BTreeMap<Place, Card>,
    /// The nodes' driver versions.
    drivers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Card {
    status: GpuStatus,
    pci_address: Option<String>,
    holders: BTreeSet<String>,
    exclusive: bool,
}

impl Told {
    /// An object's status, and what was found in its guest.
    pub(super) fn hear(&mut self, who: &str, status: &LxcStatus, facts: Option<&GuestFacts>) {
        let Some(node) = &status.node else { return };
        for gpu in &status.gpus {
            let card = self.cards.entry((node.clone(), gpu.index)).or_default();
            if card.status.uuid.is_none() {
                card.status = gpu.clone();
            }
            let exclusive = <&str>::from(Sharing::Exclusive);
            card.exclusive |= gpu.sharing.as_deref() == Some(exclusive);
            card.holders.insert(who.to_owned());
        }
        let Some(facts) = facts else { return };
        if let Some(version) = &facts.host_driver {
            self.drivers.insert(node.clone(), version.clone());
        }
        for (fact, minor) in facts.gpus.iter().filter_map(|f| Some((f, f.minor?))) {
            let card = self
                .cards
                .entry((node.clone(), i64::from(minor)))
                .or_default();
            card.see(fact);
        }
    }

    /// The map, upon what it was and the cards on the nodes' PCI buses, as far as those can be seen.
    pub(super) fn map(
        &self,
        before: &[HostGpuStatus],
        pci: Option<&BTreeMap<String, Vec<PciDevice>>>,
    ) -> Vec<HostGpuStatus> {
        let mut map: BTreeMap<Place, HostGpuStatus> = BTreeMap::new();
        for old in before.iter().filter(|g| self.stands(g, pci)) {
            let freed = HostGpuStatus {
                sharing: None,
                held_by: Vec::new(),
                ..old.clone()
            };
            map.insert((old.node.clone(), old.index), freed);
        }
        for (place, card) in &self.cards {
            let (node, index) = place;
            let known = map.entry(place.clone()).or_insert_with(|| HostGpuStatus {
                node: node.clone(),
                index: *index,
                ..HostGpuStatus::default()
            });
            card.tell(known);
        }
        for (node, devices) in pci.into_iter().flatten() {
            place_by_bus(&mut map, node, devices);
        }
        for gpu in map.values_mut() {
            if let Some(version) = self.drivers.get(&gpu.node) {
                gpu.driver = Some(version.clone());
            }
        }
        map.into_values().collect()
    }

    /// What was known before still holds: a driver told it, nobody contradicts, and the bus still has it as far as that can be seen. An
    /// index that was only guessed is guessed anew.
    fn stands(&self, old: &HostGpuStatus, pci: Option<&BTreeMap<String, Vec<PciDevice>>>) -> bool {
        let elsewhere = self.cards.iter().any(|((node, index), card)| {
            *node == old.node
                && *index != old.index
                && (card.status.uuid.is_some() && card.status.uuid == old.uuid
                    || card.pci_address.is_some() && card.pci_address == old.pci_address)
        });
        let devices = pci.and_then(|p| p.get(&old.node));
        let on_bus = match (devices, &old.pci_address) {
            (Some(devices), Some(address)) => {
                devices.iter().any(|d| d.id.eq_ignore_ascii_case(address))
            }
            _ => true,
        };
        let guessed = old.uuid.is_none() && devices.is_some();
        !elsewhere && on_bus && !guessed
    }
}

impl Card {
    /// What a guest's driver says is so.
    fn see(&mut self, fact: &GpuFact) {
        self.pci_address = Some(fact.pci_address.clone());
        self.status.uuid = Some(fact.uuid.clone());
        self.status.name = Some(fact.name.clone());
        self.status.memory = Some(Quantity::from_mebibytes(fact.memory_mib));
        self.status.driver_version = Some(fact.driver_version.clone());
    }

    fn tell(&self, known: &mut HostGpuStatus) {
        // another card in that place: nothing of the old one holds
        if self.status.uuid.is_some() && known.uuid.is_some() && self.status.uuid != known.uuid {
            *known = HostGpuStatus {
                node: known.node.clone(),
                index: known.index,
                ..HostGpuStatus::default()
            };
        }
        let or = |new: &Option<String>, old: &mut Option<String>| {
            if new.is_some() {
                old.clone_from(new);
            }
        };
        or(&self.pci_address, &mut known.pci_address);
        or(&self.status.uuid, &mut known.uuid);
        or(&self.status.name, &mut known.name);
        // libraries that show a card were of the node's version then
        if known.driver.is_none() {
            known.driver.clone_from(&self.status.driver_version);
        }
        if self.status.memory.is_some() {
            known.memory.clone_from(&self.status.memory);
        }
        known.held_by = self.holders.iter().cloned().collect();
        known.sharing = (!self.holders.is_empty()).then(|| {
            if self.exclusive {
                Sharing::Exclusive.to_string()
            } else {
                Sharing::Shared.to_string()
            }
        });
    }
}

/// The cards on a node's bus that no driver has told the index of take the indices that are left, in the order of their addresses.
fn place_by_bus(map: &mut BTreeMap<Place, HostGpuStatus>, node: &str, devices: &[PciDevice]) {
    let known: BTreeSet<String> = map
        .values()
        .filter(|g| g.node == node)
        .filter_map(|g| g.pci_address.as_ref().map(|a| a.to_ascii_lowercase()))
        .collect();
    let mut unplaced: Vec<&PciDevice> = devices
        .iter()
        .filter(|d| !known.contains(&d.id.to_ascii_lowercase()))
        .collect();
    unplaced.sort_by(|a, b| a.id.cmp(&b.id));
    let mut index = 0;
    for device in unplaced {
        // a place is left where nobody is, or somebody of whose address nothing is known
        while map
            .get(&(node.to_owned(), index))
            .is_some_and(|g| g.pci_address.is_some())
        {
            index += 1;
        }
        let gpu = map
            .entry((node.to_owned(), index))
            .or_insert_with(|| HostGpuStatus {
                node: node.to_owned(),
                index,
                ..HostGpuStatus::default()
            });
        gpu.pci_address = Some(device.id.clone());
        if gpu.name.is_none() {
            gpu.name.clone_from(&device.device_name);
        }
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::InitState;

    fn bus(addresses: &[&str]) -> BTreeMap<String, Vec<PciDevice>> {
        let device = |address: &&str| PciDevice {
            id: (*address).to_owned(),
            class: "0x030000".to_owned(),
            vendor: "0x10de".to_owned(),
            device_name: Some("AD102GL".to_owned()),
        };
        BTreeMap::from([("pve".to_owned(), addresses.iter().map(device).collect())])
    }

    fn status(gpus: &[(i64, &str)]) -> LxcStatus {
        let gpu = |(index, sharing): &(i64, &str)| GpuStatus {
            index: *index,
            sharing: Some((*sharing).to_owned()),
            ..GpuStatus::default()
        };
        LxcStatus {
            node: Some("pve".to_owned()),
            gpus: gpus.iter().map(gpu).collect(),
            ..LxcStatus::default()
        }
    }

    fn facts(cards: &[(u32, &str, &str)]) -> GuestFacts {
        let gpu = |(minor, uuid, address): &(u32, &str, &str)| GpuFact {
            minor: Some(*minor),
            uuid: (*uuid).to_owned(),
            pci_address: (*address).to_owned(),
            name: "NVIDIA L4".to_owned(),
            memory_mib: 1024,
            driver_version: "580.76.05".to_owned(),
        };
        GuestFacts {
            host_key: None,
            ssh_key: None,
            init: InitState::Running,
            default_route: true,
            resolves: true,
            state: None,
            vllm: None,
            gpus: cards.iter().map(gpu).collect(),
            gpu_devices: Vec::new(),
            nvidia_error: None,
            host_driver: Some("580.76.05".to_owned()),
            os: None,
            docker_storage: None,
        }
    }

    fn shown(map: &[HostGpuStatus]) -> Vec<String> {
        map.iter()
            .map(|g| {
                format!(
                    "{} {} {} {} {}",
                    g.index,
                    g.pci_address.as_deref().unwrap_or("-"),
                    g.uuid.as_deref().unwrap_or("-"),
                    g.sharing.as_deref().unwrap_or("-"),
                    g.held_by.join("+")
                )
                .trim_end()
                .to_owned()
            })
            .collect()
    }

    #[test]
    fn cards_on_the_bus_take_the_indices_that_no_driver_told() {
        let buses = bus(&["0000:41:00.0", "0000:01:00.0", "0000:81:00.0"]);
        let map = Told::default().map(&[], Some(&buses));
        assert_eq!(
            shown(&map),
            [
                "0 0000:01:00.0 - -",
                "1 0000:41:00.0 - -",
                "2 0000:81:00.0 - -"
            ]
        );
        assert_eq!(map[0].name.as_deref(), Some("AD102GL"));
        // a driver says that the guess was wrong
        let mut told = Told::default();
        let card = facts(&[(0, "GPU-a", "0000:41:00.0")]);
        told.hear(
            "LxcContainer x/one",
            &status(&[(0, "Exclusive")]),
            Some(&card),
        );
        let map = told.map(&map, Some(&buses));
        assert_eq!(
            shown(&map),
            [
                "0 0000:41:00.0 GPU-a Exclusive LxcContainer x/one",
                "1 0000:01:00.0 - -",
                "2 0000:81:00.0 - -"
            ]
        );
        assert_eq!(map[0].name.as_deref(), Some("NVIDIA L4"));
        assert_eq!(map[2].driver.as_deref(), Some("580.76.05"));
    }

    #[test]
    fn what_was_known_outlives_its_holders_and_the_operator() {
        let mut told = Told::default();
        let cards = facts(&[(0, "GPU-a", "0000:01:00.0"), (1, "GPU-b", "0000:41:00.0")]);
        told.hear(
            "LxcContainer x/a",
            &status(&[(0, "Shared"), (1, "Shared")]),
            Some(&cards),
        );
        told.hear("LxcContainer x/b", &status(&[(1, "Shared")]), None);
        let map = told.map(&[], None);
        assert_eq!(
            shown(&map)[1],
            "1 0000:41:00.0 GPU-b Shared LxcContainer x/a+LxcContainer x/b"
        );
        let later = Told::default().map(&map, None);
        assert_eq!(
            shown(&later),
            ["0 0000:01:00.0 GPU-a -", "1 0000:41:00.0 GPU-b -"]
        );
        assert_eq!(later[0].driver.as_deref(), Some("580.76.05"));
        // one was taken out of the machine
        let one = Told::default().map(&later, Some(&bus(&["0000:41:00.0"])));
        assert_eq!(shown(&one), ["1 0000:41:00.0 GPU-b -"]);
        // they were exchanged
        let mut told = Told::default();
        let cards = facts(&[(0, "GPU-b", "0000:41:00.0")]);
        told.hear("LxcContainer x/a", &status(&[(0, "Shared")]), Some(&cards));
        assert_eq!(
            shown(&told.map(&later, None)),
            ["0 0000:41:00.0 GPU-b Shared LxcContainer x/a"]
        );
    }

    #[test]
    fn at_rest_it_stays_as_it_is() {
        let buses = bus(&["0000:01:00.0", "0000:41:00.0"]);
        let mut told = Told::default();
        told.hear("LxcContainer x/a", &status(&[(1, "Shared")]), None);
        let map = told.map(&[], Some(&buses));
        assert_eq!(told.map(&map, Some(&buses)), map);
        assert_eq!(shown(&map)[1], "1 0000:41:00.0 - Shared LxcContainer x/a");
    }
}
