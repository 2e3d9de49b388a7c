//! Users, tokens, pools and the access control list, and what follows from them.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{AclShape, HostShape, UserShape};

/// Every privilege there is.
pub(crate) const PRIVILEGES: [&str; 47] = [
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "Group.Allocate",
    "Mapping.Audit",
    "Mapping.Modify",
    "Mapping.Use",
    "Permissions.Modify",
    "Pool.Allocate",
    "Pool.Audit",
    "Realm.Allocate",
    "Realm.AllocateUser",
    "SDN.Allocate",
    "SDN.Audit",
    "SDN.Use",
    "Sys.AccessNetwork",
    "Sys.Audit",
    "Sys.Console",
    "Sys.Incoming",
    "Sys.Modify",
    "Sys.PowerMgmt",
    "Sys.Syslog",
    "User.Modify",
    "VM.Allocate",
    "VM.Audit",
    "VM.Backup",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.FileRead",
    "VM.GuestAgent.FileSystemMgmt",
    "VM.GuestAgent.FileWrite",
    "VM.GuestAgent.Unrestricted",
    "VM.Migrate",
    "VM.PowerMgmt",
    "VM.Replicate",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
];

/// Privileges on a path, each with whether deeper paths inherit it.
pub(crate) type Rights = BTreeMap<String, bool>;

/// Who may do what.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) users: BTreeMap<String, UserShape>,
    pub(crate) acl: Vec<AclShape>,
    pub(crate) pools: BTreeMap<String, Pool>,
    /// Users whose login asks for more than a password.
    pub(crate) second_factor: BTreeSet<String>,
}

/// A resource pool.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pool {
    pub(crate) guests: BTreeSet<u32>,
    pub(crate) storages: BTreeSet<String>,
}

/// The user or token behind a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `phoenix@pve`.
    pub(crate) user: String,
    /// The token's name.
    pub(crate) token: Option<String>,
}

impl Identity {
    pub(crate) fn user(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            token: None,
        }
    }

    /// `phoenix@pve!operator`.
    pub(crate) fn id(&self) -> String {
        match &self.token {
            Some(token) => format!("{}!{token}", self.user),
            None => self.user.clone(),
        }
    }

    /// Only a ticket of root@pam is root@pam; no token ever is.
    pub(crate) fn is_root(&self) -> bool {
        self.token.is_none() && self.user == "root@pam"
    }
}

impl Access {
    pub(crate) fn new(shape: &HostShape) -> Self {
        Self {
            users: shape
                .users
                .iter()
                .map(|user| (user.id.clone(), user.clone()))
                .collect(),
            acl: shape.acl.clone(),
            pools: shape
                .pools
                .iter()
                .map(|name| (name.clone(), Pool::default()))
                .collect(),
            second_factor: BTreeSet::new(),
        }
    }

    pub(crate) fn pool_of(&self, vmid: u32) -> Option<&str> {
        self.pools
            .iter()
            .find(|(_, pool)| pool.guests.contains(&vmid))
            .map(|(name, _)| name.as_str())
    }

    /// What an identity may do on a path.
    pub(crate) fn rights(&self, who: &Identity, path: &str) -> Rights {
        let everything = || {
            PRIVILEGES
                .iter()
                .map(|name| ((*name).to_owned(), true))
                .collect()
        };
        let owner = if who.user == "root@pam" {
            everything()
        } else {
            self.with_pools(&who.user, path)
        };
        let Some(token) = &who.token else {
            return owner;
        };
        let separated = self
            .users
            .get(&who.user)
            .and_then(|user| user.tokens.iter().find(|known| known.id == *token))
            .is_none_or(|token| token.privsep);
        if !separated {
            return owner;
        }
        let own = self.with_pools(&who.id(), path);
        own.into_iter()
            .filter(|(privilege, _)| owner.contains_key(privilege))
            .collect()
    }

    pub(crate) fn may(&self, who: &Identity, path: &str, privilege: &str) -> bool {
        self.rights(who, path).contains_key(privilege)
    }

    pub(crate) fn may_any(&self, who: &Identity, path: &str, privileges: &[&str]) -> bool {
        let rights = self.rights(who, path);
        privileges
            .iter()
            .any(|privilege| rights.contains_key(*privilege))
    }

    /// Deeper lines replace what shallower ones said.
    fn listed(&self, who: &str, path: &str) -> Rights {
        let mut rights = Rights::new();
        for level in levels(path) {
            let lines: Vec<&AclShape> = self
                .acl
                .iter()
                .filter(|line| line.who == who && line.path == level)
                .filter(|line| line.propagate || level == path)
                .collect();
            if !lines.is_empty() {
                rights = lines
                    .iter()
                    .flat_map(|line| {
                        line.privileges
                            .iter()
                            .map(|name| (name.clone(), line.propagate))
                    })
                    .collect();
            }
        }
        if rights.contains_key("NoAccess") {
            Rights::new()
        } else {
            rights
        }
    }

    fn with_pools(&self, who: &str, path: &str) -> Rights {
        let mut rights = self.listed(who, path);
        let member = |pool: &Pool| match path.split('/').collect::<Vec<_>>()[..] {
            ["", "vms", id] => id.parse().is_ok_and(|id: u32| pool.guests.contains(&id)),
            ["", "storage", id] => pool.storages.contains(id),
            _ => false,
        };
        for (name, _) in self.pools.iter().filter(|(_, pool)| member(pool)) {
            for privilege in self.listed(who, &format!("/pool/{name}")).into_keys() {
                rights.entry(privilege).or_insert(false);
            }
        }
        rights
    }

    /// The paths that `access/permissions` tells of by itself.
    pub(crate) fn known_paths(&self) -> BTreeSet<String> {
        let fixed = [
            "/",
            "/access",
            "/access/groups",
            "/nodes",
            "/pool",
            "/sdn",
            "/storage",
            "/vms",
            "/sdn/zones",
        ];
        fixed
            .into_iter()
            .map(str::to_owned)
            .chain(self.acl.iter().map(|line| line.path.clone()))
            .collect()
    }
}

/// `/`, `/vms`, `/vms/900`.
fn levels(path: &str) -> Vec<&str> {
    let mut found = vec!["/"];
    found.extend(path.match_indices('/').skip(1).map(|(at, _)| &path[..at]));
    if path != "/" {
        found.push(path);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access::new(&HostShape::phoenix())
    }

    fn operator() -> Identity {
        Identity {
            user: "phoenix@pve".into(),
            token: Some("operator".into()),
        }
    }

    #[test]
    fn deeper_lines_replace_shallower_ones() {
        let access = access();
        assert!(access.may(&operator(), "/nodes/pve", "Sys.Audit"));
        assert!(access.may(&operator(), "/vms/900", "VM.Clone"));
        assert!(!access.may(&operator(), "/vms/900", "Sys.Audit"));
        assert!(access.may(&operator(), "/sdn/zones/localnetwork/vmbr0", "SDN.Use"));
        assert!(!access.may(&operator(), "/storage/tank2", "Datastore.AllocateSpace"));
        assert!(!access.may(&operator(), "/", "Sys.Modify"));
    }

    #[test]
    fn a_separated_token_has_no_more_than_its_user() {
        let mut access = access();
        access.users.get_mut("phoenix@pve").unwrap().tokens[0].privsep = true;
        assert!(
            !access.may(&operator(), "/vms/900", "VM.Clone"),
            "a separated token needs lines of its own"
        );
        access.acl.push(AclShape {
            path: "/vms".into(),
            who: operator().id(),
            privileges: vec!["VM.Clone".into(), "VM.Migrate".into()],
            propagate: true,
        });
        assert!(access.may(&operator(), "/vms/900", "VM.Clone"));
        assert!(!access.may(&operator(), "/vms/900", "VM.Migrate"));
        let root_token = Identity {
            user: "root@pam".into(),
            token: Some("x".into()),
        };
        assert!(!root_token.is_root());
        assert!(!access.may(&root_token, "/", "Sys.Audit"));
        assert!(access.may(&Identity::user("root@pam"), "/", "Sys.Audit"));
    }

    #[test]
    fn a_pools_rights_reach_its_guests_only() {
        let mut access = access();
        let who = Identity::user("phoenix@pve");
        access.acl = vec![AclShape {
            path: "/pool/k8s".into(),
            who: who.id(),
            privileges: vec!["VM.Audit".into()],
            propagate: true,
        }];
        access.pools.insert(
            "k8s".into(),
            Pool {
                guests: BTreeSet::from([105]),
                storages: BTreeSet::new(),
            },
        );
        assert!(access.may(&who, "/vms/105", "VM.Audit"));
        assert!(!access.may(&who, "/vms/106", "VM.Audit"));
    }

    #[test]
    fn paths_have_levels() {
        assert_eq!(levels("/"), ["/"]);
        assert_eq!(levels("/vms/900"), ["/", "/vms", "/vms/900"]);
    }
}
