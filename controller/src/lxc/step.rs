//! Everything that the operator ever does to Proxmox or a guest, in one exhaustive enum. A step is a value with all it needs.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use crate::engine::Named;

/// The container that a step is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its node.
    pub node: String,
    /// Its VMID.
    pub vmid: u32,
}

/// Changes of a config, made by one PUT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Keys to set, in Proxmox's spelling.
    pub set: BTreeMap<String, String>,
    /// Keys to delete.
    pub delete: Vec<String>,
    /// What they are, for people.
    pub what: Vec<String>,
    /// Only root@pam by ticket may do this.
    pub as_root: bool,
    /// A device node that the host may lack: then it is skipped.
    pub optional_device: Option<String>,
}

impl Change {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.delete.is_empty()
    }

    /// Whether it gives the container a device.
    pub fn sets_device(&self, path: &str) -> bool {
        let given = |(key, value): (&String, &String)| {
            key.starts_with("dev") && value.split(',').next() == Some(path)
        };
        self.set.iter().any(given)
    }

    /// What a person with a root shell on the node would type for the same effect.
    pub fn pct_set(&self, vmid: u32) -> String {
        let mut line = format!("pct set {vmid}");
        for (key, value) in &self.set {
            let _ = write!(line, " --{key} {}", word(value));
        }
        for key in &self.delete {
            let _ = write!(line, " --delete {key}");
        }
        line
    }
}

/// As one word for a shell.
fn word(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

/// What to do in a guest; the texts come from `Desired`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestStep {
    /// Wait for init.
    AwaitBoot {
        /// And for a way out.
        network: bool,
    },
    /// Look only.
    Inspect,
    /// Make a clone a machine of its own.
    Personalise,
    /// Let our SSH key in.
    Authorize,
    /// Start a setup run.
    StartSetup {
        /// Counted from 1.
        attempt: u32,
    },
    /// Start the driver step of the setup that brought the NVIDIA libraries.
    StartDriverStep {
        /// Counted from 1.
        attempt: u32,
    },
    /// Follow the run.
    AwaitSetup,
    /// Write vLLM's unit and (re)start it.
    ApplyVllm,
    /// Remove what must not be in a sealed template.
    Clean,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write the chosen VMID into the status before it is used.
    ReserveVmid {
        /// The VMID.
        vmid: u32,
    },
    /// Write the GPUs that it holds from now on into the status, before its devices are set.
    TakeGpus {
        /// Which.
        site: Site,
        /// Their minors.
        gpus: Vec<u32>,
        /// Nobody else holds them meanwhile.
        exclusive: bool,
    },
    /// Write the chosen node into the status before it is used.
    ChooseNode {
        /// The node.
        node: String,
        /// Why this one.
        why: String,
    },
    /// Create from an OS template.
    Create {
        /// Where.
        site: Site,
        /// The call's parameters.
        params: Vec<(String, String)>,
    },
    /// Clone a sealed template.
    Clone {
        /// The clone.
        site: Site,
        /// VMID of the source.
        source: u32,
        /// Name of the source's object.
        template: String,
        /// The call's parameters.
        params: Vec<(String, String)>,
    },
    /// Destroy a container that carries our mark.
    Destroy {
        /// Which.
        site: Site,
        /// It never got finished; it will be built again.
        half_made: bool,
    },
    /// Change the config.
    Configure {
        /// Which.
        site: Site,
        /// How.
        change: Change,
    },
    /// Grow the root file system or a volume.
    Resize {
        /// Which.
        site: Site,
        /// The disk's key in the config.
        disk: String,
        /// To how much, in GiB.
        gib: u64,
    },
    /// Start it.
    Start {
        /// Which.
        site: Site,
    },
    /// Shut it down.
    Shutdown {
        /// Which.
        site: Site,
        /// How long its init may take.
        timeout: Duration,
        /// Kill it after that.
        force: bool,
    },
    /// Do something inside.
    Guest {
        /// Which.
        site: Site,
        /// What.
        step: GuestStep,
    },
    /// Convert it into a Proxmox CT template.
    Convert {
        /// Which.
        site: Site,
    },
    /// Take the snapshot that full clones are made from.
    Snapshot {
        /// Which.
        site: Site,
        /// Its name.
        name: String,
    },
}

impl Step {
    /// The container concerned, once there is one.
    pub fn site(&self) -> Option<&Site> {
        match self {
            Self::ReserveVmid { .. } | Self::ChooseNode { .. } => None,
            Self::TakeGpus { site, .. }
            | Self::Create { site, .. }
            | Self::Clone { site, .. }
            | Self::Destroy { site, .. }
            | Self::Configure { site, .. }
            | Self::Resize { site, .. }
            | Self::Start { site }
            | Self::Shutdown { site, .. }
            | Self::Guest { site, .. }
            | Self::Convert { site }
            | Self::Snapshot { site, .. } => Some(site),
        }
    }
}

impl Named for Step {
    fn name(&self) -> &'static str {
        match self {
            Self::ReserveVmid { .. } => "reserve_vmid",
            Self::TakeGpus { .. } => "take_gpus",
            Self::ChooseNode { .. } => "choose_node",
            Self::Create { .. } => "create",
            Self::Clone { .. } => "clone",
            Self::Destroy { .. } => "destroy",
            Self::Configure { .. } => "configure",
            Self::Resize { .. } => "resize",
            Self::Start { .. } => "start",
            Self::Shutdown { .. } => "shutdown",
            Self::Guest { step, .. } => match step {
                GuestStep::AwaitBoot { .. } => "await_boot",
                GuestStep::Inspect => "inspect",
                GuestStep::Personalise => "personalise",
                GuestStep::Authorize => "authorize",
                GuestStep::StartSetup { .. } => "start_setup",
                GuestStep::StartDriverStep { .. } => "start_driver_step",
                GuestStep::AwaitSetup => "await_setup",
                GuestStep::ApplyVllm => "apply_vllm",
                GuestStep::Clean => "clean",
            },
            Self::Convert { .. } => "convert",
            Self::Snapshot { .. } => "snapshot",
        }
    }

    fn phrase(&self) -> String {
        match self {
            Self::ReserveVmid { vmid } => format!("reserve VMID {vmid}"),
            Self::TakeGpus { site, gpus, .. } => {
                format!("take {} of node {}", gpus_in_words(gpus), site.node)
            }
            Self::ChooseNode { node, why } => format!("create it on node {node}: {why}"),
            Self::Create { site, .. } => {
                format!("create container {} on node {}", site.vmid, site.node)
            }
            Self::Clone {
                site,
                source,
                template,
                ..
            } => format!("clone {template} ({source}) as {}", site.vmid),
            Self::Destroy {
                site,
                half_made: true,
            } => format!("destroy the half-made container {}", site.vmid),
            Self::Destroy { site, .. } => format!("destroy container {}", site.vmid),
            Self::Configure { change, .. } => format!("set {}", change.what.join(", ")),
            Self::Resize { disk, gib, .. } if disk == "rootfs" => {
                format!("grow the root file system to {gib} GiB")
            }
            Self::Resize { disk, gib, .. } => format!("grow volume {disk} to {gib} GiB"),
            Self::Start { site } => format!("start container {}", site.vmid),
            Self::Shutdown { site, .. } => format!("shut container {} down", site.vmid),
            Self::Guest { step, .. } => match step {
                GuestStep::AwaitBoot { network: true } => "wait for init and network".to_owned(),
                GuestStep::AwaitBoot { network: false } => "wait for init".to_owned(),
                GuestStep::Inspect => "look into the guest".to_owned(),
                GuestStep::Personalise => "make the clone a machine of its own".to_owned(),
                GuestStep::Authorize => "let the operator's SSH key in".to_owned(),
                GuestStep::StartSetup { attempt: 1 } => "run the setup".to_owned(),
                GuestStep::StartSetup { attempt } => format!("run the setup, attempt {attempt}"),
                GuestStep::StartDriverStep { attempt } => {
                    format!("bring the NVIDIA libraries to the node's version, attempt {attempt}")
                }
                GuestStep::AwaitSetup => "follow the setup".to_owned(),
                GuestStep::ApplyVllm => "write vLLM's unit and start it".to_owned(),
                GuestStep::Clean => "clean up before the seal".to_owned(),
            },
            Self::Convert { site } => format!("convert {} into a template", site.vmid),
            Self::Snapshot { name, .. } => format!("take snapshot {name}"),
        }
    }
}

/// `GPU 0`, `GPUs 0, 1`.
pub(in crate::lxc) fn gpus_in_words(gpus: &[u32]) -> String {
    let list: Vec<String> = gpus.iter().map(u32::to_string).collect();
    let noun = if gpus.len() == 1 { "GPU" } else { "GPUs" };
    format!("{noun} {}", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_run_is_one_that_a_shell_understands() {
        let mut change = Change::default();
        change
            .set
            .insert("dev0".to_owned(), "/dev/nvidia0,mode=0666".to_owned());
        change
            .set
            .insert("features".to_owned(), "mount=nfs;cifs,nesting=1".to_owned());
        change.delete.push("dev3".to_owned());
        assert_eq!(
            change.pct_set(901),
            "pct set 901 --dev0 /dev/nvidia0,mode=0666 --features 'mount=nfs;cifs,nesting=1' --delete dev3"
        );
        assert_eq!(word("it's"), r"'it'\''s'");
    }
}
